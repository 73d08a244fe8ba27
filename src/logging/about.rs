//! Lines about an instance.

use std::fmt;

/// A line about an instance, which is something with a name, a UUID and a handle: its level, the instance, further fields in brackets where
/// there are some, and what [`format!`] takes.
///
/// ```ignore
/// about!(warn, self, "its machine runs, but its TPM is locked");
/// about!(info, instance, [peer = peer.label.as_str()], "prepared for another host");
/// ```
macro_rules! about {
    ($level:ident, $instance:expr, [$($fields:tt)*], $($message:tt)+) => {{
        let about = &$instance;
        ::log::$level!(
            instance:% = about.name(), uuid:% = about.uuid(), handle:% = $crate::logging::Handle(about.handle()),
            $($fields)*; $($message)+
        )
    }};
    ($level:ident, $instance:expr, $($message:tt)+) => {{
        let about = &$instance;
        ::log::$level!(
            instance:% = about.name(), uuid:% = about.uuid(), handle:% = $crate::logging::Handle(about.handle());
            $($message)+
        )
    }};
}

pub(crate) use about;

/// The handle of an instance, as `vtpmctl` shows it.
pub(crate) struct Handle(pub(crate) u32);

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// As much of an identifier as tells it apart.
pub(crate) struct Short<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(6).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
