//! The faults. All state is of the process, as the faults are.

#![expect(
    unsafe_code,
    reason = "the C library's functions are replaced by ones that call the kernel themselves; only in the build for the test of crashes"
)]

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStringExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[cfg(not(debug_assertions))]
compile_error!(
    "a vtpmd that fails when it is told to is for tests: the feature fault-injection is not for release builds"
);

/// What happens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    KillBefore,
    KillAfter,
    KillUnsent,
    KillCall,
    TearCall,
    NoRoom,
    NoSync,
}

struct Plan {
    kind: Kind,
    /// Steps are counted, or else calls.
    steps: bool,
    at: u64,
    lasting: bool,
    over: Option<CString>,
}

static PLAN: OnceLock<Plan> = OnceLock::new();
static STEPS: AtomicU64 = AtomicU64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// The medium fails.
static FAILING: AtomicBool = AtomicBool::new(false);
/// The medium has failed.
static STRUCK: AtomicBool = AtomicBool::new(false);

/// Reads what is asked for. A value that nobody could have meant ends the process: a test must not pass for want of its fault.
pub fn arm() {
    let Some(text) = std::env::var_os("VTPMD_FAULT") else { return };
    let over = std::env::var_os("VTPMD_FAULT_OVER").and_then(|path| CString::new(path.into_vec()).ok());
    match text.to_str().and_then(|text| parse(text, over)) {
        Some(plan) => drop(PLAN.set(plan)),
        None => {
            eprintln!("fault: VTPMD_FAULT is {}", text.display());
            std::process::exit(2);
        }
    }
}

fn parse(text: &str, over: Option<CString>) -> Option<Plan> {
    let (name, place) = text.split_once(':')?;
    let (place, lasting) = place.strip_suffix('+').map_or((place, false), |place| (place, true));
    let (kind, steps) = match name {
        "kill-before" => (Kind::KillBefore, true),
        "kill-after" => (Kind::KillAfter, true),
        "kill-unsent" => (Kind::KillUnsent, true),
        "kill-call" => (Kind::KillCall, false),
        "tear-call" => (Kind::TearCall, false),
        "enospc" => (Kind::NoRoom, true),
        "enospc-call" => (Kind::NoRoom, false),
        "fsync" => (Kind::NoSync, true),
        "fsync-call" => (Kind::NoSync, false),
        _ => return None,
    };
    let plan = Plan { kind, steps, at: place.parse().ok()?, lasting, over };
    let can_last = matches!(kind, Kind::NoRoom | Kind::NoSync);
    (plan.at > 0 && (can_last || !lasting)).then_some(plan)
}

/// Counts.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::SeqCst).saturating_add(1)
}

fn say(what: &str) {
    let line = format!("fault: {what}\n");
    // SAFETY: the buffer is as long as is said, and the kernel only reads it.
    let _unheard = unsafe { libc::syscall(libc::SYS_write, 2, line.as_ptr(), line.len()) };
}

fn die(what: &str) -> ! {
    say(what);
    // SAFETY: signals this process; no memory is touched.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    loop {
        std::thread::park();
    }
}

/// A transaction is about to be written.
pub(crate) fn step_begins() {
    let step = count(&STEPS);
    let Some(plan) = PLAN.get().filter(|plan| plan.steps) else { return };
    match plan.kind {
        Kind::KillBefore if step == plan.at => die(&format!("killed before step {step}")),
        Kind::NoRoom | Kind::NoSync if step >= plan.at && !STRUCK.load(Ordering::SeqCst) => {
            FAILING.store(true, Ordering::SeqCst);
        }
        _ => {}
    }
}

/// A transaction was written, or failed.
pub(crate) fn step_is_over(durable: bool) {
    let Some(plan) = PLAN.get().filter(|plan| plan.steps) else { return };
    let step = STEPS.load(Ordering::SeqCst);
    if plan.kind == Kind::KillAfter && step == plan.at && durable {
        die(&format!("killed after step {step}"));
    }
    if !plan.lasting && STRUCK.load(Ordering::SeqCst) {
        FAILING.store(false, Ordering::SeqCst);
    }
}

/// A response is about to be sent.
pub(crate) fn response_is_made() {
    if let Some(plan) = PLAN.get()
        && plan.kind == Kind::KillUnsent
        && STEPS.load(Ordering::SeqCst) >= plan.at
    {
        die(&format!("killed with the response of step {} unsent", plan.at));
    }
}

/// One of the calls below, on a file.
enum Call {
    Write,
    Sync,
    Name,
}

/// What becomes of a call.
enum Fate {
    Happens,
    HalfHappens,
    Fails(c_int),
}

fn fate(call: &Call) -> Fate {
    let number = count(&CALLS);
    let Some(plan) = PLAN.get() else { return Fate::Happens };
    let reached = !plan.steps && number >= plan.at;
    match (plan.kind, call) {
        (Kind::KillCall, _) if reached => die(&format!("killed before call {number}")),
        (Kind::TearCall, Call::Write) if reached => Fate::HalfHappens,
        (Kind::TearCall, _) if reached => die(&format!("killed before call {number}")),
        (Kind::NoRoom, Call::Write) if medium_fails(plan, reached) => Fate::Fails(libc::ENOSPC),
        (Kind::NoSync, Call::Sync) if medium_fails(plan, reached) => Fate::Fails(libc::EIO),
        _ => Fate::Happens,
    }
}

fn medium_fails(plan: &Plan, reached: bool) -> bool {
    if reached && !STRUCK.load(Ordering::SeqCst) {
        FAILING.store(true, Ordering::SeqCst);
    }
    if !FAILING.load(Ordering::SeqCst) {
        return false;
    }
    if let Some(over) = &plan.over
        // SAFETY: the path ends with a zero byte.
        && unsafe { libc::access(over.as_ptr(), libc::F_OK) } == 0
    {
        FAILING.store(false, Ordering::SeqCst);
        return false;
    }
    if !STRUCK.swap(true, Ordering::SeqCst) {
        let what = if plan.kind == Kind::NoRoom { "a write" } else { "a synchronisation" };
        say(&format!("{what} failed at step {}", STEPS.load(Ordering::SeqCst)));
    }
    if !plan.lasting && !plan.steps {
        FAILING.store(false, Ordering::SeqCst);
    }
    true
}

/// Whether a descriptor is that of a file that is not one of the standard ones.
fn is_file(fd: c_int) -> bool {
    if fd <= libc::STDERR_FILENO {
        return false;
    }
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the kernel fills the structure, or says that it has not.
    let stat = unsafe {
        if libc::fstat(fd, stat.as_mut_ptr()) != 0 {
            return false;
        }
        stat.assume_init()
    };
    stat.st_mode & libc::S_IFMT == libc::S_IFREG || stat.st_mode & libc::S_IFMT == libc::S_IFDIR
}

fn fail(errno: c_int) -> c_long {
    // SAFETY: the place of this thread's errno is always there.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn as_int(result: c_long) -> c_int {
    // The calls that return an int return 0 or -1.
    if result == 0 { 0 } else { -1 }
}

/// Writes, as the fault lets it: `write` is given how many bytes to write.
fn written(fd: c_int, length: usize, write: impl Fn(usize) -> c_long) -> libc::ssize_t {
    let result = match if is_file(fd) { fate(&Call::Write) } else { Fate::Happens } {
        Fate::Happens => write(length),
        Fate::HalfHappens => {
            write(length / 2);
            die("killed in the middle of a write")
        }
        Fate::Fails(errno) => fail(errno),
    };
    libc::ssize_t::try_from(result).unwrap_or(-1)
}

fn done(call: &Call, concerned: bool, change: impl Fn() -> c_long) -> c_int {
    as_int(match if concerned { fate(call) } else { Fate::Happens } {
        Fate::Fails(errno) => fail(errno),
        Fate::Happens | Fate::HalfHappens => change(),
    })
}

/// See `write(2)`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, length: usize) -> libc::ssize_t {
    // SAFETY: the caller's promise, for no more bytes than it was made for.
    written(fd, length, |length| unsafe { libc::syscall(libc::SYS_write, fd, buffer, length) })
}

/// See `pwrite(2)`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    buffer: *const c_void,
    length: usize,
    offset: i64,
) -> libc::ssize_t {
    // SAFETY: the caller's promise, for no more bytes than it was made for.
    written(fd, length, |length| unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, length, offset) })
}

/// See `fsync(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: takes a number only.
    done(&Call::Sync, is_file(fd), || unsafe { libc::syscall(libc::SYS_fsync, fd) })
}

/// See `fdatasync(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: takes a number only.
    done(&Call::Sync, is_file(fd), || unsafe { libc::syscall(libc::SYS_fdatasync, fd) })
}

/// See `ftruncate(2)`.
#[unsafe(no_mangle)]
pub extern "C" fn ftruncate64(fd: c_int, length: i64) -> c_int {
    // SAFETY: takes numbers only.
    done(&Call::Name, is_file(fd), || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) })
}

/// See `rename(2)`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    done(&Call::Name, true, || unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0)
    })
}

/// See `linkat(2)`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn linkat(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    done(&Call::Name, true, || unsafe { libc::syscall(libc::SYS_linkat, from_dir, from, to_dir, to, flags) })
}

/// See `unlink(2)`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    done(&Call::Name, true, || unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_meant_is_understood() {
        for text in ["kill-before:1", "kill-call:30", "enospc:7+", "fsync-call:2"] {
            assert!(parse(text, None).is_some(), "{text}");
        }
        for text in ["", "kill-before", "kill-before:0", "kill-after:1+", "enospc:", "fsync:x", "kill:3"] {
            assert!(parse(text, None).is_none(), "{text}");
        }
    }
}
