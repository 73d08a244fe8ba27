//! Buffer limits of both parents, as the link tells them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vtpm_protocol::instance::{LimitTag, Uuid, cc};
use vtpmd::link::Patience;
use vtpmd::link::bell::Bell;
use vtpmd::link::listener::{Hall, Listener};
use vtpmd::link::root::RootTrust;
use vtpmd::link::server::Host;
use vtpmd::link::tls::Tls;
use vtpmd::migration::client::{Client, ClientError, Transport, TransportError};

use crate::link::{RUN, pair};
use crate::site::{NAME, UUID};
use crate::tpm::possessions;

/// The root of a host whose commands take less than vtpmd's do.
struct Narrow {
    root: Mutex<UnixStream>,
    limit: u32,
}

impl Narrow {
    fn through(&self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut root = self.root.lock().unwrap();
        root.write_all(command)?;
        let mut response = vec![0; 10];
        root.read_exact(&mut response)?;
        let size = u32::from_be_bytes(response[2..6].try_into().unwrap()) as usize;
        response.resize(size, 0);
        root.read_exact(&mut response[10..])?;
        Ok(response)
    }
}

impl Transport for Narrow {
    fn transmit(&self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
        let mut response = self.through(command)?;
        let max_data = (LimitTag::MaxData as u32).to_be_bytes();
        if command[6..10] == cc::GET_INSTANCE_CAPABILITY.0.to_be_bytes()
            && let Some(at) = response.windows(4).position(|word| word == max_data)
        {
            response[at + 4..at + 8].copy_from_slice(&self.limit.to_be_bytes());
        }
        if command[6..10] == cc::SET_INSTANCE_DATA.0.to_be_bytes() {
            assert!(command.len() < self.limit as usize + 200, "{} bytes at once", command.len());
        }
        Ok(response)
    }
}

/// One instance, of which nobody asks more.
struct Doorless(Arc<Bell>, Arc<vtpmd::tree::Instance>);
impl Host for Doorless {
    fn find(&self, _uuid: Uuid) -> Result<Option<u32>, ClientError> {
        Ok(Some(self.1.handle()))
    }

    fn attached(&self, _instance: u32) -> bool {
        false
    }

    fn bell(&self) -> Option<&Bell> {
        Some(&self.0)
    }
}

#[test]
fn a_destination_that_has_no_room_for_the_whole_gets_it_area_by_area() {
    for (limit, portions) in [(8000, "areas"), (1 << 19, "whole")] {
        let (a, b, kept) = pair();
        let root = RootTrust::new(Arc::new(b.client()));
        let bell = Arc::new(Bell::default());
        let ticket = b.path("ticket");
        b.ctl(&["migrate", "prepare", NAME, "--uuid", UUID, "--ticket", &ticket]);
        let auth =
            hex::decode(std::fs::read_to_string(b.state_dir().join("root.auth")).unwrap().trim()).unwrap();
        let socket = UnixStream::connect(b.path("run/root/tpm.sock")).unwrap();
        let narrow = Narrow { root: Mutex::new(socket), limit };
        let hall = Hall {
            tls: Tls::new(&root.link_key().unwrap()).unwrap(),
            trust: Arc::new(root),
            client: Arc::new(Client::new(narrow, auth.into())),
            host: Arc::new(Doorless(bell.clone(), b.guest())),
            bell,
            patience: Patience::default(),
            max_connections: 4,
        };
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), hall).unwrap();
        a.forget(&b);
        a.add_peer(&b, &["--address", &listener.address().to_string()]);
        let told = a.json(&RUN);
        assert_eq!(told["portions"], portions, "{told}");
        assert_eq!(possessions(&b), kept);
    }
}
