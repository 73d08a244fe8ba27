//! Room for transient objects and for loaded and saved sessions (Part 1, "Session Context Management").

use super::{Object, SavedContexts, Sequence, State};
use std::sync::Arc;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmHandle, TpmHt};

/// Sessions that may be loaded at a time: `MAX_LOADED_SESSIONS`.
pub const MAX_LOADED_SESSIONS: usize = 3;
/// The greatest difference between the numbers of two saved sessions, `CONTEXT_GAP`: saving more than this many times while
/// one context stays saved needs that one to be loaded first.
pub const CONTEXT_GAP_MAX: u64 = 0xffff;

/// Transient objects that may be loaded at a time: `MAX_LOADED_OBJECTS`.
pub const MAX_LOADED_OBJECTS: u32 = 3;
/// Persistent objects that there may be at a time.
pub const MAX_PERSISTENT_OBJECTS: usize = 64;

impl State {
    /// Puts an object into the first free transient slot and returns its handle.
    ///
    /// # Errors
    /// `TPM_RC_OBJECT_MEMORY` when there is none.
    pub fn insert_transient(&mut self, object: Object) -> Result<TpmHandle, ResponseCode> {
        let handle = self.free_transient()?;
        self.transient.insert(handle.0, Arc::new(object));
        Ok(handle)
    }

    /// Removes the objects of a hierarchy, transient and persistent ones.
    pub fn remove_objects_of(&mut self, hierarchy: TpmHandle) {
        self.transient.retain(|_, object| object.hierarchy != hierarchy);
        self.persistent.retain(|_, object| object.hierarchy != hierarchy);
    }

    /// Puts a sequence into the first free transient slot and returns its handle.
    ///
    /// # Errors
    /// `TPM_RC_OBJECT_MEMORY` when there is none.
    pub fn insert_sequence(&mut self, sequence: Sequence) -> Result<TpmHandle, ResponseCode> {
        let handle = self.free_transient()?;
        self.sequences.insert(handle.0, Arc::new(sequence));
        Ok(handle)
    }

    /// The handle of the first free transient slot.
    ///
    /// # Errors
    /// `TPM_RC_OBJECT_MEMORY` when there is none.
    pub fn free_transient(&self) -> Result<TpmHandle, ResponseCode> {
        (0..MAX_LOADED_OBJECTS)
            .map(|i| TpmHandle::new(TpmHt::TRANSIENT, i))
            .find(|h| !self.transient.contains_key(&h.0) && !self.sequences.contains_key(&h.0))
            .ok_or(ResponseCode::OBJECT_MEMORY)
    }

    /// The handles of transient objects and sequences, ascending.
    #[must_use]
    pub fn transient_handles(&self) -> Vec<u32> {
        let mut handles: Vec<u32> = self.transient.keys().chain(self.sequences.keys()).copied().collect();
        handles.sort_unstable();
        handles
    }

    /// A sequence; `None` for the handle of something else.
    #[must_use]
    pub fn sequence(&self, handle: TpmHandle) -> Option<&Sequence> {
        self.sequences.get(&handle.0).map(|s| &**s)
    }

    /// As [`Self::sequence`], for changing.
    pub fn sequence_mut(&mut self, handle: TpmHandle) -> Option<&mut Sequence> {
        self.sequences.get_mut(&handle.0).map(Arc::make_mut)
    }

    /// Takes a free slot for a new session.
    ///
    /// # Errors
    /// Those of [`Self::check_session_memory`]; `TPM_RC_SESSION_HANDLES` when `most` are active.
    pub fn allocate_session(&mut self, most: usize) -> Result<u32, ResponseCode> {
        self.check_session_memory(None)?;
        let slots = &mut self.volatile_mut().state_reset.contexts.slots;
        if slots.iter().filter(|slot| **slot != 0).count() >= most {
            return Err(ResponseCode::SESSION_HANDLES);
        }
        let (index, slot) =
            slots.iter_mut().enumerate().find(|(_, s)| **s == 0).ok_or(ResponseCode::SESSION_HANDLES)?;
        *slot = SavedContexts::LOADED;
        u32::try_from(index).map_err(|_| ResponseCode::SESSION_HANDLES)
    }

    /// Whether one more session can be loaded: the one saved under `number`, or a new one.
    ///
    /// # Errors
    /// `TPM_RC_SESSION_MEMORY` when as many as possible are loaded; `TPM_RC_CONTEXT_GAP` when the last free slot is all there is to load
    /// the oldest saved session, without which no other can be saved.
    pub fn check_session_memory(&self, number: Option<u64>) -> Result<(), ResponseCode> {
        let free = MAX_LOADED_SESSIONS.saturating_sub(self.sessions.len());
        match (free, self.session_that_stops_saving()) {
            (0, _) => Err(ResponseCode::SESSION_MEMORY),
            (1, Some(oldest)) if number != Some(oldest) => Err(ResponseCode::CONTEXT_GAP),
            _ => Ok(()),
        }
    }

    /// The number of the oldest saved session, once it is so old that the next number would be too far from it.
    fn session_that_stops_saving(&self) -> Option<u64> {
        let contexts = &self.volatile.state_reset.contexts;
        let oldest = contexts.slots.iter().copied().filter(|s| *s >= SavedContexts::FIRST).min()?;
        (contexts.counter.saturating_sub(oldest) >= CONTEXT_GAP_MAX).then_some(oldest)
    }

    /// The number under which the session in slot `index` is saved, if it is.
    #[must_use]
    pub fn saved_session(&self, index: u32) -> Option<u64> {
        let slot = self.volatile.state_reset.contexts.slots.get(usize::try_from(index).ok()?)?;
        (*slot >= SavedContexts::FIRST).then_some(*slot)
    }

    /// Gives the loaded session in slot `index` the next number of a saved context and takes it out of memory.
    ///
    /// # Errors
    /// `TPM_RC_CONTEXT_GAP` when the oldest saved context is too old; that one must be loaded or flushed first.
    /// `TPM_RC_TOO_MANY_CONTEXTS` when there is no next number.
    pub fn save_session(&mut self, index: u32) -> Result<u64, ResponseCode> {
        if self.session_that_stops_saving().is_some() {
            return Err(ResponseCode::CONTEXT_GAP);
        }
        let contexts = &mut self.volatile_mut().state_reset.contexts;
        let number = contexts.counter;
        contexts.counter = number.checked_add(1).ok_or(ResponseCode::TOO_MANY_CONTEXTS)?;
        let slot = usize::try_from(index).ok().and_then(|i| contexts.slots.get_mut(i));
        *slot.ok_or(ResponseCode::HANDLE)? = number;
        self.sessions.remove(&index);
        Ok(number)
    }

    /// Marks a slot as loaded again.
    pub fn mark_session_loaded(&mut self, index: u32) {
        let slots = &mut self.volatile_mut().state_reset.contexts.slots;
        if let Some(slot) = usize::try_from(index).ok().and_then(|i| slots.get_mut(i)) {
            *slot = SavedContexts::LOADED;
        }
    }
}
