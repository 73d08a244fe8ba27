//! The front doors of a TPM instance. They know the TPM only as [`device::TpmDevice`].

pub mod device;
pub mod vhost;
