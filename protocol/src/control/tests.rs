use super::*;
use proptest::prelude::*;

fn requests() -> impl Strategy<Value = Request> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u8>());
    (0..Command::ALL.len(), numbers).prop_map(|(which, (a, b, c, wide, byte))| match Command::ALL[which] {
        Command::GetCapability => Request::GetCapability,
        Command::Init => Request::Init(InitFlags(a)),
        Command::Shutdown => Request::Shutdown,
        Command::GetTpmEstablished => Request::GetTpmEstablished,
        Command::SetLocality => Request::SetLocality(byte),
        Command::HashStart => Request::HashStart,
        Command::HashData => Request::HashData(a),
        Command::HashEnd => Request::HashEnd,
        Command::CancelTpmCmd => Request::CancelTpmCmd,
        Command::StoreVolatile => Request::StoreVolatile,
        Command::ResetTpmEstablished => Request::ResetTpmEstablished(byte),
        Command::GetStateBlob => Request::GetStateBlob { flags: StateFlags(a), blob: BlobType(b), offset: c },
        Command::SetStateBlob => Request::SetStateBlob { flags: StateFlags(a), blob: BlobType(b), length: c },
        Command::Stop => Request::Stop,
        Command::GetConfig => Request::GetConfig,
        Command::SetDataFd => Request::SetDataFd,
        Command::SetBufferSize => Request::SetBufferSize(a),
        Command::GetInfo => Request::GetInfo { flags: InfoFlags(wide), offset: a },
        Command::LockStorage => Request::LockStorage(a),
    })
}

/// A command with a response that it can have.
fn responses() -> impl Strategy<Value = (Command, Response)> {
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>());
    (0..Command::ALL.len(), numbers).prop_map(|(which, (a, b, c, d, bit))| {
        let command = Command::ALL[which];
        let response = match command {
            Command::GetStateBlob => {
                Response::StateBlob { result: ControlResult(a), flags: StateFlags(b), total: c, length: d }
            }
            _ if bit && a != 0 => Response::Result(ControlResult(a)),
            Command::GetCapability => Response::Capability(Capabilities(a)),
            Command::GetTpmEstablished => Response::TpmEstablished(b % 2 == 0),
            Command::GetConfig => Response::Config(ConfigFlags(a)),
            Command::SetBufferSize => Response::BufferSize { size: a, min: b, max: c },
            Command::GetInfo => Response::Info { total: a, length: b },
            _ => Response::Result(ControlResult(a)),
        };
        (command, response)
    })
}

proptest! {
    #[test]
    fn requests_survive_their_bytes_and_are_known_to_be_incomplete_before(request in requests()) {
        let bytes = request.to_bytes();
        prop_assert!(bytes.len() <= MAX_REQUEST);
        prop_assert_eq!(Request::parse(&bytes), Ok(Parsed::Whole(request, &[][..])));
        for cut in 0..bytes.len() {
            match Request::parse(&bytes[..cut]) {
                Ok(Parsed::Incomplete(needed)) => prop_assert!(needed > cut && needed <= bytes.len()),
                other => prop_assert!(false, "{cut} of {}: {other:?}", bytes.len()),
            }
        }
    }

    #[test]
    fn what_follows_a_request_is_its_content_up_to_its_length(request in requests(), tail in proptest::collection::vec(any::<u8>(), 1..64)) {
        let bytes = [request.to_bytes(), tail.clone()].concat();
        let locality = matches!(request, Request::SetLocality(_) | Request::ResetTpmEstablished(_));
        let expected = if tail.len() <= request.content_length() as usize {
            Ok(Parsed::Whole(request, &tail[..]))
        } else if locality && tail.len() == 3 {
            Ok(Parsed::Whole(request, &[][..]))
        } else {
            Err(RequestError::TooLong(request.command()))
        };
        prop_assert_eq!(Request::parse(&bytes), expected);
    }

    #[test]
    fn responses_survive_their_bytes_and_have_the_length_that_their_result_tells((command, response) in responses()) {
        let bytes = response.to_bytes();
        prop_assert!(bytes.len() <= MAX_RESPONSE);
        prop_assert_eq!(bytes.len(), Response::length(command, response.result()));
        let mut r = Reader::new(&bytes);
        prop_assert_eq!(Response::decode(command, &mut r), Ok(response));
        prop_assert!(r.is_empty());
        for cut in 0..bytes.len() {
            let cut = Response::decode(command, &mut Reader::new(&bytes[..cut]));
            prop_assert_eq!(cut, Err(ResponseCode::INSUFFICIENT));
        }
    }

    #[test]
    fn any_bytes_are_a_request_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        match Request::parse(&bytes) {
            Ok(Parsed::Incomplete(needed)) => prop_assert!(needed > bytes.len()),
            Ok(Parsed::Whole(request, rest)) => prop_assert!(rest.len() <= request.content_length() as usize),
            Err(RequestError::Unknown(number)) => prop_assert_eq!(&bytes[..4], &number.to_be_bytes()),
            Err(RequestError::TooLong(command)) => prop_assert_eq!(&bytes[..4], &command.number().to_be_bytes()),
        }
    }

    #[test]
    fn frames_of_the_data_channel_survive_their_bytes(locality: u8, length: u32) {
        let frame = SendCommand { locality, length };
        let bytes = frame.to_bytes();
        prop_assert_eq!(bytes.len(), SendCommand::LENGTH);
        prop_assert_eq!(crate::codec::decode_exact::<SendCommand>(&bytes), Ok(frame));
    }
}

#[test]
fn commands_have_the_numbers_1_to_19() {
    let numbers: Vec<u32> = Command::ALL.iter().map(|c| c.number()).collect();
    assert_eq!(numbers, (1..=19).collect::<Vec<u32>>());
    assert!(Command::ALL.iter().all(|&c| Command::from_number(c.number()) == Some(c)));
    assert_eq!((Command::from_number(0), Command::from_number(20)), (None, None));
}

/// What QEMU 7.2 and swtpm_ioctl 0.7.1 were seen to send.
#[test]
fn requests_of_known_programs_are_read() {
    let cases: &[(&[u8], Request)] = &[
        (&[0, 0, 0, 5, 3], Request::SetLocality(3)),
        (&[0, 0, 0, 5, 3, 0, 0, 0], Request::SetLocality(3)),
        (&[0, 0, 0, 11, 4, 0, 0, 0], Request::ResetTpmEstablished(4)),
        (&[0, 0, 0, 2, 0, 0, 0, 1], Request::Init(InitFlags::DELETE_VOLATILE)),
        (&[0, 0, 0, 17, 0, 0, 0x0f, 0x80], Request::SetBufferSize(3968)),
        (&[0, 0, 0, 19, 0, 0, 1, 0x2c], Request::LockStorage(300)),
        (
            &[0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0],
            Request::GetStateBlob { flags: StateFlags::DECRYPTED, blob: BlobType::VOLATILE, offset: 0 },
        ),
    ];
    for (bytes, request) in cases {
        assert_eq!(Request::parse(bytes), Ok(Parsed::Whole(*request, &[][..])));
    }
    // Two bytes of padding are none.
    assert_eq!(Request::parse(&[0, 0, 0, 5, 3, 0, 0]), Err(RequestError::TooLong(Command::SetLocality)));
}

/// What swtpm 0.7.1 was seen to answer.
#[test]
fn responses_have_the_bytes_of_swtpm() {
    let blob = Response::StateBlob {
        result: ControlResult::RETRY,
        flags: StateFlags::default(),
        total: 0,
        length: 0,
    };
    assert_eq!(blob.to_bytes(), [0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Response::Capability(Capabilities(0xffff)).to_bytes(), [0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(Response::TpmEstablished(true).to_bytes(), [0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(Response::Result(ControlResult::BAD_LOCALITY).to_bytes(), [0, 0, 0, 0x3d]);
    let size = Response::BufferSize { size: 4096, min: 2808, max: 4096 };
    assert_eq!(size.to_bytes(), [0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0x0a, 0xf8, 0, 0, 16, 0]);
    assert_eq!(Response::Info { total: 63, length: 63 }.to_bytes(), [0, 0, 0, 0, 0, 0, 0, 63, 0, 0, 0, 63]);
}
