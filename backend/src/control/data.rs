//! The data channel: TPM commands, each answered by its response.
//!
//! As with swtpm, what comes at once is one command, whatever its header says of its size; only a beginning is waited on. So a guest that
//! lies about the size of a command does not lose the channel, on which nobody could tell where its next one begins.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::PollFlags;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::control::SendCommand;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::HEADER_SIZE;
use zeroize::{Zeroize, Zeroizing};

use super::channel::{Broken, Channel, deadline};
use super::door::Shared;
use super::machine::bare;
use crate::acceptor::Bell;
use crate::device::MAX_COMMAND_SIZE;
use crate::socket::thread_name;

/// Longer than any command, so that one that is too long is seen to be.
const ROOM: usize = MAX_COMMAND_SIZE + SendCommand::LENGTH + 1;

/// What came of a command that is not whole yet.
type Beginning = Zeroizing<Vec<u8>>;

/// A data channel with its thread.
pub(super) struct DataChannel {
    /// Until it is paused.
    channel: Option<Channel>,
    /// Ends with what came last when it is paused.
    thread: Option<JoinHandle<Option<Beginning>>>,
    pause: Arc<Pause>,
    ended: Arc<AtomicBool>,
    /// A descriptor that was passed, with the guest of a machine behind it; else a client of the data socket.
    pub(super) of_machine: bool,
}

/// Has the thread of a data channel stop between two commands, without hanging up.
struct Pause {
    wanted: AtomicBool,
    bell: Bell,
}

impl Pause {
    fn call(&self) {
        self.wanted.store(true, Ordering::Release);
        self.bell.ring();
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

impl DataChannel {
    /// Starts to serve `channel`, on which the `beginning` of a command has come already.
    ///
    /// # Errors
    /// The system's, when there is no thread.
    pub(super) fn start(
        shared: &Arc<Shared>,
        channel: Channel,
        of_machine: bool,
        beginning: Beginning,
    ) -> std::io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let pause = Arc::new(Pause { wanted: AtomicBool::new(false), bell: Bell::new()? });
        let thread = std::thread::Builder::new().name(thread_name(&shared.options.name)).spawn({
            let (shared, channel) = (shared.clone(), channel.try_clone()?);
            let (ended, pause) = (ended.clone(), pause.clone());
            move || {
                let name = &shared.options.name;
                match shared.serve(&channel, of_machine, &pause, &beginning) {
                    Ok(None) => log::debug!(instance:% = name; "{name}: the data channel ended"),
                    Ok(Some(beginning)) => return Some(beginning),
                    Err(why) => log::warn!(instance:% = name; "{name}: the data channel is closed: {why}"),
                }
                channel.hang_up();
                ended.store(true, Ordering::Release);
                shared.wake();
                None
            }
        })?;
        Ok(Self { channel: Some(channel), thread: Some(thread), pause, ended, of_machine })
    }

    /// Lets the command at hand be answered, and gives the connection back, with what came of the next command. `None` when it has ended.
    pub(super) fn pause(mut self) -> Option<(Channel, Beginning)> {
        self.pause.call();
        let beginning = self.thread.take()?.join().ok()??;
        Some((self.channel.take()?, beginning))
    }

    /// Whether its thread is done with it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Drop for DataChannel {
    /// Ends it, after the command at hand.
    fn drop(&mut self) {
        if let Some(channel) = &self.channel {
            channel.hang_up();
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// What has come, as one command.
enum Frame<'a> {
    /// So many bytes in total are needed to know more.
    Beginning,
    Whole {
        prefix: Option<SendCommand>,
        command: &'a [u8],
    },
}

/// Looks at what has come; a command may have `limit` bytes.
fn frame(bytes: &[u8], limit: usize) -> Frame<'_> {
    let mut r = Reader::new(bytes);
    let prefix = match bytes.first_chunk().map(|b| u32::from_be_bytes(*b)) {
        None => return Frame::Beginning,
        Some(SendCommand::NUMBER) => match SendCommand::decode(&mut r) {
            Ok(prefix) => Some(prefix),
            Err(_) => return Frame::Beginning,
        },
        Some(_) => None,
    };
    let command = r.peek_rest();
    let Some(size) = command.get(2..6).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes) else {
        return Frame::Beginning;
    };
    // A size that no command has is not waited for.
    let size = usize::try_from(size).ok().filter(|size| (HEADER_SIZE..=limit).contains(size));
    if size.is_some_and(|size| command.len() < size) {
        return Frame::Beginning;
    }
    Frame::Whole { prefix, command }
}

impl Shared {
    /// Until the client leaves, or until it is paused: then with what has come of the next command.
    fn serve(
        &self,
        channel: &Channel,
        of_machine: bool,
        pause: &Pause,
        beginning: &[u8],
    ) -> Result<Option<Beginning>, Broken> {
        let mut buffer = Zeroizing::new([0; ROOM]);
        let mut come = 0usize;
        for (place, byte) in buffer.iter_mut().zip(beginning) {
            *place = *byte;
            come = come.saturating_add(1);
        }
        let paused = |come: &[u8]| Ok(Some(Zeroizing::new(come.to_vec())));
        loop {
            if pause.is_wanted() {
                return paused(buffer.get(..come).unwrap_or_default());
            }
            if come == 0 {
                // As a rule nothing has come yet: the client has the response just now.
                let waited = channel.wait(PollFlags::POLLIN, None, Some(&pause.bell));
                come = match waited.and_then(|()| channel.read(&mut *buffer, None)) {
                    Ok(0) => return Ok(None),
                    Ok(come) => come,
                    Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e.into()),
                };
            }
            let until = deadline(self.options.patience);
            let response = loop {
                let bytes = buffer.get(..come).unwrap_or_default();
                if let Frame::Whole { prefix, command } = frame(bytes, self.buffer_size()) {
                    break self.respond(prefix, command);
                }
                let rest = buffer.get_mut(come..).unwrap_or_default();
                let got = match channel.read_or_hear(rest, Some(until), &pause.bell) {
                    Err(e) if e.kind() == ErrorKind::Interrupted => {
                        return paused(buffer.get(..come).unwrap_or_default());
                    }
                    got => got.map_err(Broken::from),
                };
                match got {
                    Ok(0) => return Err(Broken::Short),
                    Ok(got) => come = come.saturating_add(got),
                    // A guest's command that is shorter than it says.
                    Err(Broken::TooSlow) if of_machine => break bare(ResponseCode::COMMAND_SIZE),
                    Err(other) => return Err(other),
                }
            };
            buffer.get_mut(..come).unwrap_or_default().zeroize();
            channel.write(&response, deadline(self.options.patience))?;
            if self.options.disconnect && !of_machine {
                return Ok(None);
            }
            come = 0;
        }
    }

    fn respond(&self, prefix: Option<SendCommand>, command: &[u8]) -> Vec<u8> {
        let locality = prefix.map(|prefix| prefix.locality);
        let executed = catch_unwind(AssertUnwindSafe(|| self.execute(locality, command)));
        let response = executed.unwrap_or_else(|_| {
            log::error!(instance:% = self.options.name; "{}: a command caused a panic", self.options.name);
            self.executing.store(false, Ordering::Release);
            bare(ResponseCode::FAILURE)
        });
        if prefix.is_none() {
            return response;
        }
        let mut framed = u32::try_from(response.len()).unwrap_or(u32::MAX).to_bytes();
        framed.extend(response);
        0u32.encode(&mut framed);
        framed
    }

    fn buffer_size(&self) -> usize {
        usize::try_from(self.machine().buffer).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Option<(Option<SendCommand>, usize)> {
        match frame(bytes, 4096) {
            Frame::Beginning => None,
            Frame::Whole { prefix, command } => Some((prefix, command.len())),
        }
    }

    #[test]
    fn only_a_beginning_is_waited_on() {
        let command = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
        for cut in 0..command.len() {
            assert_eq!(whole(&command[..cut]), None);
        }
        assert_eq!(whole(&command), Some((None, 12)));
        // More than it says, and sizes that no command has.
        assert_eq!(whole(&[&command[..], &[7]].concat()), Some((None, 13)));
        assert_eq!(whole(&[0x80, 1, 0, 0, 0, 9]), Some((None, 6)));
        assert_eq!(whole(&[0x80, 1, 0, 0, 0x10, 1]), Some((None, 6)));
        assert_eq!(whole(&[0x80, 1, 0xff, 0xff, 0xff, 0xff]), Some((None, 6)));
    }

    #[test]
    fn a_prefix_is_taken_off() {
        let prefix = SendCommand { locality: 3, length: 12 };
        let command = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
        let bytes = [prefix.to_bytes(), command.to_vec()].concat();
        for cut in 0..bytes.len() {
            assert_eq!(whole(&bytes[..cut]), None);
        }
        assert_eq!(whole(&bytes), Some((Some(prefix), 12)));
    }
}
