//! What becomes of a guest and its TPM when a migration goes through, is cancelled, is refused, or loses one of the programs that take part
//! in it.
//!
//! Every row ends with both sides looked at: which machine runs, by its QEMU, and which side's TPM executes commands, by its vtpmd and by
//! the loop in the guest. That never both do is checked at each look. A row that fails leaves the guest on the source, and so one guest
//! goes through several rows, with one loop of commands of which none may get lost or be done twice.

mod cancelled;
mod field;
mod gate;
mod killed;
mod refused;
mod through;
