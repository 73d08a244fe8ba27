//! What libtpms 0.9.2 derives: the digests of the Names of derived objects, and with them of their unique fields.
//!
//! They were read from swtpm 0.7.1, into which the same derivation parent was imported.

use vtpm_protocol::tpm::{TpmAlgId, TpmaObject};

/// One derived object.
pub struct Derived {
    /// Its type.
    pub alg: TpmAlgId,
    /// Its attributes beside fixedParent, userWithAuth and noDA.
    pub attributes: TpmaObject,
    /// Its parameters.
    pub parms: &'static str,
    /// Its name algorithm.
    pub name_alg: TpmAlgId,
    /// The label.
    pub label: &'static str,
    /// The context.
    pub context: &'static str,
    /// The digests in the Names below a parent with SHA-256, SHA-1 and SHA-512.
    pub names: [&'static str; 3],
}

const NONE: TpmaObject = TpmaObject(0);
const SIGN: TpmaObject = TpmaObject::SIGN_ENCRYPT;
const DECRYPT: TpmaObject = TpmaObject::DECRYPT;
const BOTH: TpmaObject = TpmaObject(SIGN.0 | DECRYPT.0);
const RESTRICTED: TpmaObject = TpmaObject(DECRYPT.0 | TpmaObject::RESTRICTED.0);

#[rustfmt::skip] // An object is a paragraph.
pub const DERIVED: [Derived; 20] = [
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: SIGN, parms: "0005000b", name_alg: TpmAlgId::SHA256, label: "label", context: "context",
        names: [
            "deefee2bfded4dff5298cfe644b0826ab70604caa063bbab26d6e250c9746ee8",
            "e082d13eac350da0b2415f6c5096e6928f0dde088c663bc721c84a1b73ed1203",
            "84bcfb634afeec4ca462456b8785c03a67900e1599891418cb723500d4bcded5",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: SIGN, parms: "0005000b", name_alg: TpmAlgId::SHA256, label: "label\0", context: "context",
        names: [
            "deefee2bfded4dff5298cfe644b0826ab70604caa063bbab26d6e250c9746ee8",
            "e082d13eac350da0b2415f6c5096e6928f0dde088c663bc721c84a1b73ed1203",
            "84bcfb634afeec4ca462456b8785c03a67900e1599891418cb723500d4bcded5",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: SIGN, parms: "0005000d", name_alg: TpmAlgId::SHA384, label: "label", context: "context",
        names: [
            "4db72873052e54f3c1d2a909864536b539c47cb65fc13c19f1bc60415987fdc2\
             4fcd163b169bd77978c8ecf5a9b232df",
            "b77f71b45efe446d94b54b861eb5cbe3944e4294218defcfe39ddd62bf6d58e5\
             41643e37283019b7f55c91f0b70d3270",
            "75ac1e9009d467a5e8cc832745fefe8f90d423289b43d463a5806bd4db928b3d\
             454d2a8a0f41163a3593bf84772b5804",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: SIGN, parms: "0005000b", name_alg: TpmAlgId::SHA256, label: "", context: "",
        names: [
            "6b9e48af5eebd3b993bc30c526733db8041633cd58a0a4858624aea779d62bdc",
            "945a39d3debe2dde8565dcbcadde629afe2b9f559e7a56bde3a0f6ec333a9e61",
            "a66e72e958747b24cd3102c12cc84113c4e98d27c7d534d7e87edbc1b8a177b4",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: SIGN, parms: "0005000b", name_alg: TpmAlgId::SHA256, label: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", context: "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        names: [
            "a3b42a88195aebd980db11f9fc8c906768e8d1c4fe878a5f054b5ac71aed5642",
            "61e19b71d0cf5ae04496170ab34a9ba9076a73b5638a112040dacaf2ec78b336",
            "6b83c81bed94fdd4da091c73a832975b165a3f1dcc1d05e3e2eb957aa21edd78",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: NONE, parms: "0010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "49c115ba4fc5499d554b3a7e241bd954e8ef97d79938c184e8fd98deca6cfe9c",
            "afbe35bdb855415d1fa3b37dd2e2856377d10d31329e86e8c77c4c50492db382",
            "be579b7755fe04aa3ac7aeace036a68151673d59ea383311450167c2731beb20",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: DECRYPT, parms: "000a000b0022", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "e58238f3b48cafefa9d75ee3f170b29395343249f7ae3a76e18674de84b9d382",
            "34a184d9d9bc92c233111006863c233f08220ec24421e1d9138c3430b1ee7a3e",
            "23ad6fac7237e5dfc3ba1091c5b886e671aae3dc1ca655d476fc9501a08b4bac",
        ],
    },
    Derived {
        alg: TpmAlgId::KEYEDHASH, attributes: RESTRICTED, parms: "000a000b0022", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "13ea281ae1495779610ebf598ceb35209931b0935fbbb40afbf3c56391d3a867",
            "f0c5d8097055afd0144b73a778226ccc8b6a533b88e0cd91f1f721738c3497f0",
            "1a67b4c8d6c7700ad36fb035ac01796f7ff96d8d1314357f1973ed8781b38ba9",
        ],
    },
    Derived {
        alg: TpmAlgId::SYMCIPHER, attributes: BOTH, parms: "000600800043", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "010073047a30e7ceb76f6bc3dac25e88530359c797fe5fb10124cba0023a893c",
            "4fa187da88c36a726a56257699fb4d9954c257e79138fdfdfc35914686bed021",
            "c2b79645476873ccd1b089c89f127e8c646d9d61ccd36ff33bc713544f2da89b",
        ],
    },
    Derived {
        alg: TpmAlgId::SYMCIPHER, attributes: BOTH, parms: "000601000043", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "cbe3f3fa904b4ac5ad580f4acfb04ac188e396fcc3232aa10a2faae173f6d508",
            "354b570617d8285bc2a28c3fe75b39b990941eb492fc86cf7e484caeb8ff9da8",
            "975a2036e4419dffe54eb5c547890dd27b775d27da209e4193140fdbaf7e2588",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: SIGN, parms: "00100018000b00030010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "75c67a1155f793df6f4528eded448a67ce70dd8615d8a13f9ecd92ad1fd1f541",
            "c4f76206789db266ee3d130351d0583d4c9a430ffea5b38b97ffef843081ab19",
            "48ed5a138def2843028da1e45bd2f059b0dd4f0544fdb3a18c099015bc3088f9",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: DECRYPT, parms: "0010001000030010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "7332ec2c17423cc33dd0f6ef7aac745f1fbb47d11246ed99141322b93d4fc496",
            "6280ce8cc161766cfb745ed9b53b442469d927d808e1e87202f0852e1d5ef846",
            "9ab973db85ebfcd8a53745fbdc0dc8a61d6ab80b7c567eca83d5d3fc753b3b2b",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: SIGN, parms: "00100018000b00040010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "ecfe0dcc3e1d0c2804a9079a3ef17fff9a3c2293786f7eaab5309535fa22da66",
            "e471f31a8c8d13638a87e26e5af73b2a9906083860fbd37b7b1b6ddb3352e4d9",
            "e0dd7b5ca2868f6309883b3e6846fce705adf3e8694e7130df7de3256f16a14b",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: SIGN, parms: "00100018000b00050010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "8219c48099cdc8f12ebdff0a746bc7ecf4be058540bb74b09f1253e32e2534c7",
            "5d0f704df9f904bb599b771339b03782a79b353a998fbc4709d2d0d3861a0fef",
            "fee97c624c6fff6296594a1f9921b6e0d449d32ddce23e937f30e1047e9c1c55",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: SIGN, parms: "00100018000b00010010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "c75011b871aa4660a01e952c1577766938b1eb192e3d326ba2b23302a2ef6cdb",
            "cc381d0060ed263adef0f32c69b7b70bf724181053a8cb7e28e5c2eaf4f069a8",
            "6d766ca75960e0304397890ca4a4537a8ba93289c33dcab5590c891d56a93d7b",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: SIGN, parms: "00100018000b00020010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "01172192bfc5ed2f6776e4afbee9169eaa56af0a62760a88b1868b5db9d3af9e",
            "ae21eaebe7d626c8462154db89ec4cb4ed18a22472596f0ea46975747ecdcb67",
            "66bac12b02d4f2efa0e07752c57cf5a40869b7aad62d5231a4731c18e9e818af",
        ],
    },
    Derived {
        alg: TpmAlgId::ECC, attributes: SIGN, parms: "0010001b000b00200010", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "1b0a90aeef73a344ea3edaded9feb5dbc0f1a64833cf9d47df507d3092dceca8",
            "49121efff2f5b31f9b538eb279b5bf6cc39192f6c6c92f9515ab5637555a0cf8",
            "a39ccdb2808bc69a474ae721552bc08a369309ac6317a50795e1d0b9f74a4b71",
        ],
    },
    Derived {
        alg: TpmAlgId::SYMCIPHER, attributes: BOTH, parms: "000300c00043", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "dd8a3fe77c4c73adb0c9211f14e029c7979de3dffb303db03f6f4d12ad30dd99",
            "1c3880af9c6f15f6d4442b3f9874eb1c0b31be605507fcb8d503ac10e34ec366",
            "b47d722ea3bcc344bd3615809ee4d7bc2f2d26f0a7b9c087347511f6303565a3",
        ],
    },
    Derived {
        alg: TpmAlgId::SYMCIPHER, attributes: BOTH, parms: "000300800043", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "943a2ccdb2cc068d1a3cc454ee169ac1cfffa598bf092101f407428ae1c3c80d",
            "49325231705b1af278013dc827b4729954c5ba0f9f00a152fda7b1ce117ee06f",
            "3702d4f321a5eaf42f87aed8a43e00d41e24cfb78c244398f6b9bcebc6377a85",
        ],
    },
    Derived {
        alg: TpmAlgId::SYMCIPHER, attributes: BOTH, parms: "002601000043", name_alg: TpmAlgId::SHA256, label: "l", context: "c",
        names: [
            "93960e767d4ce1602006fdce7ba0d43f4466825da760858452e671149ca7683b",
            "e86aeec6a9ce9d5b5f880b51a8fdeb0fcada76f6ac7fc69ca2bfcc4d5914a818",
            "cb2f3ceb8c6b7b33dd728cfb3b87fe47faac15eb3692a71f7d81ccdb0bf48878",
        ],
    },
];
