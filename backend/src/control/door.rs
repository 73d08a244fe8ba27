//! The door: who may come in, which channels there are, and when it closes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vtpm_protocol::codec::Encode;
use vtpm_protocol::control::{ConfigFlags, Response};

use super::channel::{Broken, Channel, deadline};
use super::data::DataChannel;
use super::kept::{Kept, KeptState};
use super::machine::{MAX_LOCALITY, Machine};
use crate::acceptor::{Bell, Host, Reception};
use crate::attachment::{Attachment, Client, Door, PARTING, Presence};
use crate::device::ControlledTpm;
use crate::socket::{Access, EXHAUSTED, Entrance, FrontDoorError, Listener, Way, hung_up, is_passing};

/// What the owner of a door may want to know: a program that ends with its client, for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// `CMD_SHUTDOWN` was answered.
    Shutdown,
    /// A connection of the control channel ended.
    ControlClosed,
    /// A data channel ended.
    DataClosed,
}

/// Who is told. Called from the door's thread, which must not be kept long, and must not close the door itself.
pub type Listen = Arc<dyn Fn(ControlEvent) + Send + Sync>;

/// What can be chosen about a control door.
#[derive(Clone)]
pub struct Options {
    /// What the log calls the instance.
    pub name: String,
    /// How long the rest of a message may take to come, and a response to be read.
    pub patience: Duration,
    /// How long the state may take to come. QEMU stands still meanwhile.
    pub transfer_timeout: Duration,
    /// The place at the instance, which its other doors share.
    pub attachment: Arc<Attachment>,
    /// What `CMD_GET_CONFIG` answers.
    pub config: ConfigFlags,
    /// The TPM is on from the start and whenever no machine is connected, without `CMD_INIT`. The owner of the door switched it on.
    pub running: bool,
    /// A TPM that is switched off without `TPM2_Shutdown` is sent it, as far as it has executed anything since it was switched on.
    pub auto_shutdown: bool,
    /// A client of the data socket is served one command.
    pub disconnect: bool,
    /// Locality 4 cannot be chosen.
    pub reject_locality_4: bool,
    /// The command `0x20001000` on the data channel chooses the locality.
    pub allow_set_locality: bool,
    /// Who is told what happens.
    pub on_event: Option<Listen>,
}

impl Options {
    /// The usual choices for an instance called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            patience: Duration::from_secs(5),
            transfer_timeout: Duration::from_secs(10),
            attachment: Arc::default(),
            // The store is sealed, and so is what leaves it.
            config: ConfigFlags::FILE_KEY.with(ConfigFlags::MIGRATION_KEY),
            running: false,
            auto_shutdown: true,
            disconnect: false,
            reject_locality_4: false,
            allow_set_locality: false,
            on_event: None,
        }
    }

    pub(super) fn allows(&self, locality: u8) -> bool {
        locality < MAX_LOCALITY || (locality == MAX_LOCALITY && !self.reject_locality_4)
    }
}

/// Control and data channel of one device, open until this is dropped.
///
/// One client of the control channel is served at a time; a second one is accepted and sent away at once. Clients of a data socket wait
/// for one another, as with swtpm.
pub struct ControlDoor {
    shared: Arc<Shared>,
}

/// What the door's threads and its owner share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) device: Arc<dyn ControlledTpm>,
    machine: Mutex<Machine>,
    /// The device executes a command.
    pub(super) executing: AtomicBool,
    control: Option<Listener>,
    data: Option<Listener>,
    reception: Arc<Reception>,
    /// The control connection, to be shut down when the door closes in the middle of a message.
    current: Mutex<Option<Channel>>,
    /// The door closes, and its clients stay.
    handing_over: AtomicBool,
    kept: Mutex<Option<Kept>>,
}

impl ControlDoor {
    /// A control channel on a new UNIX socket at `path`, which only its owner and whom `access` names may connect to.
    ///
    /// # Errors
    /// [`FrontDoorError`]; `InUse` when another process listens there.
    pub fn bind(
        path: &Path,
        access: Access,
        device: Arc<dyn ControlledTpm>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        Self::open(Some(Entrance::bind_unix(path, access)?), None, device, options)
    }

    /// A control channel, a data channel, or both.
    ///
    /// # Errors
    /// [`FrontDoorError::Setup`].
    pub fn open(
        control: Option<Entrance>,
        data: Option<Entrance>,
        device: Arc<dyn ControlledTpm>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        Self::start(control, data, None, device, options)
    }

    /// The control channel of a door whose clients were handed over, with those clients.
    ///
    /// # Errors
    /// [`FrontDoorError::Setup`].
    pub fn resume(
        control: Listener,
        kept: Kept,
        device: Arc<dyn ControlledTpm>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        Self::start(Some(control.into()), None, Some(kept), device, options)
    }

    fn start(
        control: Option<Entrance>,
        data: Option<Entrance>,
        kept: Option<Kept>,
        device: Arc<dyn ControlledTpm>,
        options: Options,
    ) -> Result<Self, FrontDoorError> {
        let machine = kept.as_ref().map_or_else(|| Machine::new(options.running), |k| k.state.machine());
        let machine = Mutex::new(machine);
        let mut guests = Guests { kept, ..Guests::default() };
        let listener = |entrance: Option<Entrance>, guest: &mut Option<OwnedFd>| match entrance?.0 {
            Way::Listener(listener) => Some(listener),
            Way::Connected(fd) => {
                *guest = Some(fd);
                None
            }
        };
        let control = listener(control, &mut guests.control);
        let data = listener(data, &mut guests.data);
        let shared = Arc::new(Shared {
            options,
            device,
            machine,
            executing: AtomicBool::new(false),
            control,
            data,
            reception: Arc::default(),
            current: Mutex::new(None),
            handing_over: AtomicBool::new(false),
            kept: Mutex::new(None),
        });
        let guests = guests.is_anybody().then_some(guests);
        shared.reception.open(&shared, guests).map_err(FrontDoorError::Setup)?;
        Ok(Self { shared })
    }

    /// The socket of the control channel, if it listens on one.
    #[must_use]
    pub fn listener(&self) -> Option<&Listener> {
        self.shared.control.as_ref()
    }

    /// Waits until the door closes by itself: when it was opened on connected descriptors only, and they ended.
    pub fn wait(&mut self) {
        self.shared.reception.wait();
    }

    /// Closes the door: the command in flight is finished, connections are dropped, sockets removed. The TPM is switched off.
    pub fn close(self) {}

    /// Begins what [`Self::hand_over`] ends, so that many doors finish what is in flight at the same time.
    pub fn begin_hand_over(&self) {
        self.shared.handing_over.store(true, Ordering::Release);
        self.shared.listeners().for_each(Listener::keep_file);
        self.shared.reception.close();
    }

    /// Closes the door, and keeps who is inside for [`Self::resume`]: the message and the command in flight are finished and answered,
    /// no connection is dropped, the TPM stays on, socket files stay.
    #[must_use]
    pub fn hand_over(self) -> Option<Kept> {
        self.begin_hand_over();
        self.shared.reception.wait();
        self.shared.kept().take()
    }
}

impl Drop for ControlDoor {
    fn drop(&mut self) {
        let shared = &self.shared;
        if shared.handing_over.load(Ordering::Acquire) {
            shared.reception.wait();
            return;
        }
        shared.reception.close();
        if let Some(current) = shared.current().as_ref() {
            current.hang_up();
        }
        shared.reception.wait();
        shared.listeners().for_each(Listener::remove_file);
        // Nobody comes any more who could switch it off.
        if catch_unwind(AssertUnwindSafe(|| shared.machine_gone())).is_err() {
            log::error!(instance:% = shared.options.name; "{}: switching the TPM off caused a panic", shared.options.name);
        }
    }
}

/// Connections that were handed in.
#[derive(Default)]
pub(super) struct Guests {
    control: Option<OwnedFd>,
    data: Option<OwnedFd>,
    /// Handed over.
    kept: Option<Kept>,
}

impl Guests {
    fn is_anybody(&self) -> bool {
        self.control.is_some() || self.data.is_some() || self.kept.is_some()
    }
}

impl Host for Shared {
    type Guests = Guests;

    fn name(&self) -> &str {
        &self.options.name
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.control.iter().chain(&self.data)
    }

    fn serve(self: &Arc<Self>, bell: &Bell, guests: Guests) {
        Hall::new(self.clone()).run(bell, guests);
    }
}

impl Shared {
    /// Held while a command is executed: what it depends on does not change meanwhile.
    pub(super) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Option<Channel>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the door's thread look about.
    pub(super) fn wake(&self) {
        self.reception.ring();
    }

    fn tell(&self, event: ControlEvent) {
        if let Some(listen) = &self.options.on_event {
            listen(event);
        }
    }
}

/// Who is inside. Belongs to the door's thread.
struct Hall {
    shared: Arc<Shared>,
    control: Option<Channel>,
    data: Option<DataChannel>,
    /// The client of the control channel passed a descriptor: it is a machine, whose TPM goes off with it.
    machine: bool,
    /// While anybody is inside.
    attached: Option<Presence>,
}

/// What there is to do.
#[derive(Default)]
struct Ready {
    /// The client has sent something, or left.
    spoken: bool,
    /// Somebody wants to come in.
    control: bool,
    data: bool,
}

impl Hall {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, control: None, data: None, machine: false, attached: None }
    }

    fn run(mut self, bell: &Bell, guests: Guests) {
        let shared = self.shared.clone();
        let name = &shared.options.name;
        if let Some(client) = guests.control {
            self.welcome(client);
        }
        if let Some(client) = guests.data {
            self.welcome_data(client);
        }
        if let Some(kept) = guests.kept {
            self.welcome_back(kept);
        }
        while !shared.reception.is_closing() {
            let ready = match self.look(bell) {
                Ok(ready) => ready,
                Err(e) => {
                    log::error!(instance:% = name; "{name}: the sockets cannot be waited for: {e}");
                    std::thread::sleep(EXHAUSTED);
                    break;
                }
            };
            if shared.reception.is_closing() {
                break;
            }
            if self.data.as_ref().is_some_and(DataChannel::has_ended) {
                self.data_left();
            }
            if ready.spoken {
                self.answer();
            }
            if let Some(listener) = shared.control.as_ref().filter(|_| ready.control) {
                self.accept(listener);
            }
            if let Some(listener) = shared.data.as_ref().filter(|_| ready.data) {
                self.accept_data(listener);
            }
            if self.is_empty() {
                break;
            }
        }
        if shared.handing_over.load(Ordering::Acquire) {
            return self.hand_over();
        }
        self.control_left();
        self.data_left();
        if shared.listeners().next().is_none() {
            shared.machine_gone();
        }
    }

    fn is_empty(&self) -> bool {
        self.control.is_none() && self.data.is_none()
    }

    /// Waits until there is something to do; with nobody inside, looks whether there is.
    fn look(&self, bell: &Bell) -> io::Result<Ready> {
        let shared = &self.shared;
        // One client of the data socket at a time; the next one waits outside.
        let data = shared.data.as_ref().filter(|_| self.data.is_none());
        let mut fds = vec![PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
        let sources = [
            self.control.as_ref().map(AsFd::as_fd),
            shared.control.as_ref().map(AsFd::as_fd),
            data.map(AsFd::as_fd),
        ];
        fds.extend(sources.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)));
        let timeout = if self.is_empty() { PollTimeout::ZERO } else { PollTimeout::NONE };
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Ready::default()),
            Err(e) => return Err(e.into()),
        }
        bell.hear();
        let mut found = fds.iter().skip(1).map(|fd| fd.any().unwrap_or(true));
        let mut next = |there: bool| there && found.next().unwrap_or(false);
        Ok(Ready {
            spoken: next(self.control.is_some()),
            control: next(shared.control.is_some()),
            data: next(data.is_some()),
        })
    }

    fn accept(&mut self, listener: &Listener) {
        // Whoever comes after it must not find the place taken by what it left unread.
        while self.control.as_ref().is_some_and(hung_up) {
            self.answer();
        }
        if let Some(client) = self.take(listener) {
            self.welcome(client);
        }
    }

    fn accept_data(&mut self, listener: &Listener) {
        if let Some(client) = self.take(listener) {
            self.welcome_data(client);
        }
    }

    fn take(&self, listener: &Listener) -> Option<OwnedFd> {
        match listener.accept() {
            Ok(client) => Some(client),
            Err(e) if is_passing(&e) => None,
            Err(e) => {
                log::error!(instance:% = self.shared.options.name; "{}: no connection can be accepted: {e}", self.shared.options.name);
                std::thread::sleep(EXHAUSTED);
                None
            }
        }
    }

    /// Takes the place at the instance, unless this door has it; the log says who else has it.
    fn attach(&mut self, socket: &OwnedFd) -> Option<Client> {
        let options = &self.shared.options;
        let client = Client::of(Door::Control, socket);
        if self.attached.is_some() {
            return Some(client);
        }
        match options.attachment.attach(client, PARTING) {
            Ok(attached) => {
                self.attached = Some(Presence::new(attached, self.shared.device.clone()));
                Some(client)
            }
            Err(holder) => {
                log::warn!(instance:% = options.name; "{}: {client} was sent away: {holder} has the instance", options.name);
                None
            }
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        let name = self.shared.options.name.clone();
        if self.control.is_some() {
            if let Some(holder) = self.shared.options.attachment.client() {
                let client = Client::of(Door::Control, &socket);
                log::warn!(instance:% = name; "{name}: {client} was sent away: {holder} has the instance");
            }
            return;
        }
        let Some(client) = self.attach(&socket) else { return };
        let opened = Channel::new(socket).and_then(|channel| Ok((channel.try_clone()?, channel)));
        match opened {
            Ok((other, channel)) => {
                *self.shared.current() = Some(other);
                self.control = Some(channel);
                log::info!(instance:% = name; "{name}: {client} connected");
            }
            Err(e) => {
                log::error!(instance:% = name; "{name}: a connection could not be served: {e}");
                self.detach();
            }
        }
    }

    fn welcome_data(&mut self, socket: OwnedFd) {
        if self.attach(&socket).is_none() {
            return;
        }
        match Channel::new(socket) {
            Ok(channel) => {
                let _logged = self.open_data(channel, false, Vec::new());
            }
            Err(e) => {
                log::error!(instance:% = self.shared.options.name; "{}: a connection could not be served: {e}", self.shared.options.name)
            }
        }
        self.detach();
    }

    /// Those who were inside when the door of an earlier process closed.
    fn welcome_back(&mut self, kept: Kept) {
        let Kept { control, data, state } = kept;
        self.machine = state.of_control;
        if let Some(control) = control {
            self.welcome(control);
        }
        if let Some(data) = data
            && self.attach(&data).is_some()
        {
            let _logged = Channel::new(data)
                .and_then(|channel| self.open_data(channel, state.data_passed, state.beginning.clone()));
        }
        if self.machine && self.control.is_none() {
            self.machine = false;
            self.shared.machine_gone();
        }
        self.detach();
    }

    /// Leaves with those who are inside.
    fn hand_over(mut self) {
        let shared = self.shared.clone();
        *shared.current() = None;
        let of_machine = self.data.as_ref().is_some_and(|data| data.of_machine);
        let data = self.data.take().and_then(DataChannel::pause);
        if self.control.is_none() && data.is_none() {
            return;
        }
        let mut state = KeptState::of(&shared.machine(), self.machine);
        state.data_passed = of_machine;
        let data = data.map(|(channel, beginning)| {
            state.beginning = beginning.to_vec();
            channel.into()
        });
        *shared.kept() = Some(Kept { control: self.control.take().map(OwnedFd::from), data, state });
    }

    fn open_data(&mut self, channel: Channel, of_machine: bool, beginning: Vec<u8>) -> io::Result<()> {
        let data = DataChannel::start(&self.shared, channel, of_machine, beginning.into());
        let data = data.inspect_err(|e| {
            log::error!(instance:% = self.shared.options.name; "{}: the data channel could not be served: {e}", self.shared.options.name);
        })?;
        self.data = Some(data);
        Ok(())
    }

    /// Leaves the place to others when nobody is inside.
    fn detach(&mut self) {
        if self.is_empty() {
            self.attached = None;
        }
    }

    fn control_left(&mut self) {
        if self.control.take().is_none() {
            return;
        }
        *self.shared.current() = None;
        if std::mem::take(&mut self.machine) {
            if self.data.as_ref().is_some_and(|data| data.of_machine) {
                self.data_left();
            }
            self.shared.machine_gone();
        }
        self.shared.tell(ControlEvent::ControlClosed);
        self.detach();
    }

    fn data_left(&mut self) {
        if self.data.take().is_some() {
            self.shared.tell(ControlEvent::DataClosed);
            self.detach();
        }
    }

    /// Answers one request, or sees the client off.
    fn answer(&mut self) {
        let Some(channel) = self.control.take() else { return };
        let name = self.shared.options.name.clone();
        let handled = catch_unwind(AssertUnwindSafe(|| self.exchange(&channel)));
        self.control = Some(channel);
        match handled {
            Ok(Ok(true)) => return,
            Ok(Ok(false)) => log::info!(instance:% = name; "{name}: the client of the control channel left"),
            Ok(Err(why)) => log::warn!(instance:% = name; "{name}: the control channel is closed: {why}"),
            Err(_) => {
                log::error!(instance:% = name; "{name}: the control channel is closed: its message caused a panic")
            }
        }
        self.control_left();
    }

    /// `false` when the client has left.
    fn exchange(&mut self, channel: &Channel) -> Result<bool, Broken> {
        let patience = self.shared.options.patience;
        let message = match channel.receive(patience) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(false),
            Err(Broken::Request(error)) => {
                let refusal = Response::Result(error.result()).to_bytes();
                let _unread = channel.write(&refusal, deadline(patience));
                return Err(error.into());
            }
            Err(other) => return Err(other),
        };
        log::debug!(instance:% = self.shared.options.name; "{}: {}", self.shared.options.name, message.request.command());
        let answer = self.shared.answer(message, channel, self.data.is_some())?;
        if let Some(data) = answer.data {
            self.open_data(data, true, Vec::new())?;
            self.machine = true;
        }
        channel.write(&answer.bytes, deadline(patience))?;
        if let Some(event) = answer.event {
            self.shared.tell(event);
        }
        match answer.end {
            Some(why) => Err(Broken::Refused(why)),
            None => Ok(true),
        }
    }
}
