//! `vtpmctl migrate serve`: the destination's side of `migrate run --via ssh`.

use crate::link::Patience;
use crate::link::pipe::{self, Pipe};
use crate::link::root::RootTrust;
use crate::link::server::{Remote, Service};
use crate::link::wire::{Wire, WireError};

use super::{Ctl, Result};

impl Ctl {
    /// Answers the one at the other end of standard input and output until that ends.
    pub(super) fn serve(&self) -> Result<()> {
        let patience = Patience::default();
        let root = RootTrust::new(self.client.clone());
        let mut wire = Wire::new(Pipe::stdio().map_err(WireError::Io)?);
        let peer = pipe::answer(&mut wire, &root, patience.handshake)?;
        Ok(Service::new(&self.client, &Remote(&self.client), &peer, patience).serve(&mut wire)?)
    }
}
