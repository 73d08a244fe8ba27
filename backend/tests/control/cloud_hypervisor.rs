//! What Cloud Hypervisor sends, in its order and with its peculiarities: it asks for the bit `tpmEstablishment` before it switches the TPM
//! on, reads every response with one `read`, checks its length, and passes its standard input along with all requests but the first, whose
//! descriptor is that of the data channel.

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::world::*;

struct CloudHypervisor {
    control: UnixStream,
    passed: OwnedFd,
}

impl CloudHypervisor {
    fn run(&mut self, request: &[u8]) -> Vec<u8> {
        self.control.send_with_fd(request, self.passed.as_raw_fd()).unwrap();
        self.passed = plain_file();
        let mut output = [0; 16];
        let got = self.control.read(&mut output).unwrap();
        output[..got].to_vec()
    }
}

#[test]
fn cloud_hypervisor_finds_what_it_expects() {
    let w = World::new();
    let (mut data, there) = UnixStream::pair().unwrap();
    let control = UnixStream::connect(&w.socket).unwrap();
    let mut vmm = CloudHypervisor { control, passed: there.into() };
    // Emulator::new
    assert_eq!(vmm.run(&[0, 0, 0, 16]), [0; 4]);
    let capabilities = vmm.run(&[0, 0, 0, 1]);
    assert_eq!((capabilities.len(), &capabilities[..4]), (8, &[0; 4][..]));
    let needed = 0b0011_0100_1000_1111;
    assert_eq!(u32::from_be_bytes(capabilities[4..].try_into().unwrap()) & needed, needed);
    assert_eq!(vmm.run(&[0, 0, 0, 4]), [0; 8]);
    // get_buffer_size, and startup_tpm with the size of its buffer
    assert_eq!(vmm.run(&[0, 0, 0, 14]), [0; 4]);
    assert_eq!(vmm.run(&[0, 0, 0, 17, 0, 0, 0, 0]), [0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 10, 0xf8, 0, 0, 16, 0]);
    assert_eq!(vmm.run(&[0, 0, 0, 14]), [0; 4]);
    let size = vmm.run(&[0, 0, 0, 17, 0, 0, 0x0f, 0x80]);
    assert_eq!((size.len(), &size[..8]), (16, &[0, 0, 0, 0, 0, 0, 0x0f, 0x80][..]));
    assert_eq!(vmm.run(&[0, 0, 0, 2, 0, 0, 0, 0]), [0; 4]);
    assert_eq!(w.mock.told(), [Told::PowerOn]);
    // deliver_request: one write, one read of all its buffer has room for.
    for _ in 0..3 {
        use std::io::Write;
        data.write_all(&command(0x17b)).unwrap();
        let mut buffer = [0; 3968];
        let got = data.read(&mut buffer).unwrap();
        assert_eq!(buffer[..got], OK);
    }
    // cancel_cmd
    assert_eq!(vmm.run(&[0, 0, 0, 9]), [0; 4]);
    // The guest reboots: startup_tpm again.
    assert_eq!(vmm.run(&[0, 0, 0, 14]), [0; 4]);
    assert_eq!(vmm.run(&[0, 0, 0, 17, 0, 0, 0x0f, 0x80]).len(), 16);
    assert_eq!(vmm.run(&[0, 0, 0, 2, 0, 0, 0, 0]), [0; 4]);
}
