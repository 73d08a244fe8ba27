//! Vectors for the tests, a curve a row.

use super::super::Curve;
use crate::crypto::hash::HashAlg;

/// A key and what belongs to it, in hexadecimal digits.
pub struct Key {
    pub curve: Curve,
    pub d: &'static str,
    pub x: &'static str,
    pub y: &'static str,
}

/// What an independent program derives from the stream of `primary_stream`. **Frozen**: primary keys of guests come about like this.
pub const FROZEN: [Key; 6] = [
    Key {
        curve: Curve::NistP192,
        d: "393209479f0d14afefd1646f041165c0b6fb988276ccdb55",
        x: "46b6edb40d0916fa028515555f996c58eb7325547e1432fa",
        y: "04a0b7b636b5c4883b2612e2efe724b143778729804bb3d6",
    },
    Key {
        curve: Curve::NistP224,
        d: "3932094792c60de04965d470bfb439739925807fd618068f9ab0ccc8",
        x: "09d8b04cfe4edeaea054038b2e6d812415bc0b986131df1351b3d740",
        y: "8aa46db954024762bb9e563cec7fb831f19e4421d9ac6a6a9a5e1261",
    },
    Key {
        curve: Curve::NistP256,
        d: "c586130ae7ab379348e5acb2cd246e401a93619908858cb6c2d4e3ed6d217681",
        x: "ee0d20929533476377b5d13662945ab3d5054d687c5d764891917d1415ec9b9c",
        y: "4929492d93246299d2c11181c4389b96be5542347fe0c0b49da8a338dc62fa62",
    },
    Key {
        curve: Curve::NistP384,
        d: "3932094792c5f1d240d4aa776b818b7e9954230f9ac4a7e0a75c3dcef618912a108a66bffdb532eded776fca580e302d",
        x: "fc59d3cc849f0e1a1c7485cbfd9e9773facb86255c7ccba01dee5155126e446fac4085087b7525e23b60fbb22d01c08d",
        y: "22abe8a3c5b0e1e84a1ebd28c5b2c75714f3ea0e152e9d2a4aba8b3a678da28024444430c67ccf6cad2f0d7a986aef88",
    },
    Key {
        curve: Curve::NistP521,
        d: "0132094792c5f1d240d4aa776b818b7e9285d5ebbadd50143ac4ac442e5ddb92461d1e2495273a4526a17e7a7cda5e7e03007ac3faae0542c49a7f74d400ef07b59f",
        x: "0073480fdd49fa3d675613d762d66897d34ff71d2b8c37da03c80f0dd3399ffda269e3b086f55d20e431730d6aa4ef7534fe03b0041f6f004e519d749fe535fb82e3",
        y: "005459f124d895291fdd6ef15e2f94b9ce7ecb0fd3f33bb3b5f50a6c9acccfba9e5b13003159d702f44403e0f3fc18218cc02da66ff9cfe27193eff5281aa16166b5",
    },
    Key {
        curve: Curve::Sm2P256,
        d: "e44cc38692c5f1d251e6692bfe2074b501c84119cd0d31b75ac27eed4c8209d3",
        x: "a8fcccfab77bd3dc561c41847f97b6d1c79218a2bab82ed90dfc71bf08b0821a",
        y: "7b454bd9686ba91295b219a4efa883a6a8f6b84e38362414e61ac7569546a3cf",
    },
];

/// A key with its signatures over "sample": hash, `r`, `s`.
pub struct Signed {
    pub key: Key,
    pub signatures: [(HashAlg, &'static str, &'static str); 3],
}

/// RFC 6979, A.2.3 to A.2.7.
pub const RFC_6979: [Signed; 5] = [
    Signed {
        key: Key {
            curve: Curve::NistP192,
            d: "6fab034934e4c0fc9ae67f5b5659a9d7d1fefd187ee09fd4",
            x: "ac2c77f529f91689fea0ea5efec7f210d8eea0b9e047ed56",
            y: "3bc723e57670bd4887ebc732c523063d0a7c957bc97c1c43",
        },
        signatures: [
            (
                HashAlg::Sha1,
                "98c6bd12b23eaf5e2a2045132086be3eb8ebd62abf6698ff",
                "57a22b07dea9530f8de9471b1dc6624472e8e2844bc25b64",
            ),
            (
                HashAlg::Sha256,
                "4b0b8ce98a92866a2820e20aa6b75b56382e0f9bfd5ecb55",
                "ccdb006926ea9565cbadc840829d8c384e06de1f1e381b85",
            ),
            (
                HashAlg::Sha512,
                "4d60c5ab1996bd848343b31c00850205e2ea6922dac2e4b8",
                "3f6e837448f027a1bf4b34e796e32a811cbb4050908d8f67",
            ),
        ],
    },
    Signed {
        key: Key {
            curve: Curve::NistP224,
            d: "f220266e1105bfe3083e03ec7a3a654651f45e37167e88600bf257c1",
            x: "00cf08da5ad719e42707fa431292dea11244d64fc51610d94b130d6c",
            y: "eeab6f3debe455e3dbf85416f7030cbd94f34f2d6f232c69f3c1385a",
        },
        signatures: [
            (
                HashAlg::Sha1,
                "22226f9d40a96e19c4a301ce5b74b115303c0f3a4fd30fc257fb57ac",
                "66d1cdd83e3af75605dd6e2feff196d30aa7ed7a2edf7af475403d69",
            ),
            (
                HashAlg::Sha256,
                "61aa3da010e8e8406c656bc477a7a7189895e7e840cdfe8ff42307ba",
                "bc814050dab5d23770879494f9e0a680dc1af7161991bde692b10101",
            ),
            (
                HashAlg::Sha512,
                "074bd1d979d5f32bf958ddc61e4fb4872adcafeb2256497cdac30397",
                "a4ceca196c3d5a1ff31027b33185dc8ee43f288b21ab342e5d8eb084",
            ),
        ],
    },
    Signed {
        key: Key {
            curve: Curve::NistP256,
            d: "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
            x: "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6",
            y: "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
        },
        signatures: [
            (
                HashAlg::Sha1,
                "61340c88c3aaebeb4f6d667f672ca9759a6ccaa9fa8811313039ee4a35471d32",
                "6d7f147dac089441bb2e2fe8f7a3fa264b9c475098fdcf6e00d7c996e1b8b7eb",
            ),
            (
                HashAlg::Sha256,
                "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
                "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
            ),
            (
                HashAlg::Sha512,
                "8496a60b5e9b47c825488827e0495b0e3fa109ec4568fd3f8d1097678eb97f00",
                "2362ab1adbe2b8adf9cb9edab740ea6049c028114f2460f96554f61fae3302fe",
            ),
        ],
    },
    Signed {
        key: Key {
            curve: Curve::NistP384,
            d: "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5",
            x: "ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13",
            y: "8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720",
        },
        signatures: [
            (
                HashAlg::Sha1,
                "ec748d839243d6fbef4fc5c4859a7dffd7f3abddf72014540c16d73309834fa37b9ba002899f6fda3a4a9386790d4eb2",
                "a3bcfa947beef4732bf247ac17f71676cb31a847b9ff0cbc9c9ed4c1a5b3facf26f49ca031d4857570ccb5ca4424a443",
            ),
            (
                HashAlg::Sha256,
                "21b13d1e013c7fa1392d03c5f99af8b30c570c6f98d4ea8e354b63a21d3daa33bde1e888e63355d92fa2b3c36d8fb2cd",
                "f3aa443fb107745bf4bd77cb3891674632068a10ca67e3d45db2266fa7d1feebefdc63eccd1ac42ec0cb8668a4fa0ab0",
            ),
            (
                HashAlg::Sha512,
                "ed0959d5880ab2d869ae7f6c2915c6d60f96507f9cb3e047c0046861da4a799cfe30f35cc900056d7c99cd7882433709",
                "512c8cceee3890a84058ce1e22dbc2198f42323ce8aca9135329f03c068e5112dc7cc3ef3446defceb01a45c2667fdd5",
            ),
        ],
    },
    Signed {
        key: Key {
            curve: Curve::NistP521,
            d: "00fad06daa62ba3b25d2fb40133da757205de67f5bb0018fee8c86e1b68c7e75caa896eb32f1f47c70855836a6d16fcc1466f6d8fbec67db89ec0c08b0e996b83538",
            x: "01894550d0785932e00eaa23b694f213f8c3121f86dc97a04e5a7167db4e5bcd371123d46e45db6b5d5370a7f20fb633155d38ffa16d2bd761dcac474b9a2f5023a4",
            y: "00493101c962cd4d2fddf782285e64584139c2f91b47f87ff82354d6630f746a28a0db25741b5b34a828008b22acc23f924faafbd4d33f81ea66956dfeaa2bfdfcf5",
        },
        signatures: [
            (
                HashAlg::Sha1,
                "00343b6ec45728975ea5cba6659bbb6062a5ff89eea58be3c80b619f322c87910fe092f7d45bb0f8eee01ed3f20babec079d202ae677b243ab40b5431d497c55d75d",
                "00e7b0e675a9b24413d448b8cc119d2bf7b2d2df032741c096634d6d65d0dbe3d5694625fb9e8104d3b842c1b0e2d0b98bea19341e8676aef66ae4eba3d5475d5d16",
            ),
            (
                HashAlg::Sha256,
                "01511bb4d675114fe266fc4372b87682baecc01d3cc62cf2303c92b3526012659d16876e25c7c1e57648f23b73564d67f61c6f14d527d54972810421e7d87589e1a7",
                "004a171143a83163d6df460aaf61522695f207a58b95c0644d87e52aa1a347916e4f7a72930b1bc06dbe22ce3f58264afd23704cbb63b29b931f7de6c9d949a7ecfc",
            ),
            (
                HashAlg::Sha512,
                "00c328fafcbd79dd77850370c46325d987cb525569fb63c5d3bc53950e6d4c5f174e25a1ee9017b5d450606add152b534931d7d4e8455cc91f9b15bf05ec36e377fa",
                "00617cce7cf5064806c467f678d3b4080d6f1cc50af26ca209417308281b68af282623eaa63e5b5c0723d8b8c37ff0777b1a20f8ccb1dccc43997f1ee0e44da4a67a",
            ),
        ],
    },
];

/// A key exchange: the private values of side A, static and ephemeral, and of side B, and the x coordinates that MQV and the exchange of SM2 give.
pub struct Exchange {
    pub curve: Curve,
    pub a: [&'static str; 2],
    pub b: [&'static str; 2],
    pub mqv: &'static str,
    pub sm2: &'static str,
}

/// By an independent program.
pub const EXCHANGES: [Exchange; 6] = [
    Exchange {
        curve: Curve::NistP192,
        a: [
            "842edeef5230404efda9ffd085fd95736ca3f44f12d04aff",
            "be0f2adc4a04628f70496de0e48e18adc0cc9a353403bec4",
        ],
        b: [
            "29e8ead3bde322116b3fbad600fba4da1338122f94e7d4e9",
            "db4e263d01788c53a91f9725e9384076e428fc27d4df1600",
        ],
        mqv: "c26a395206da93472f1e7caedb90db5cddc7937a27d93654",
        sm2: "1b1cff45f53bb1f8c52f5f4ac280b569fd316dea5c6de343",
    },
    Exchange {
        curve: Curve::NistP224,
        a: [
            "842edeeef926125dca2af577ca14e56be58630a4937876023ca09743",
            "be0f2adc2b2becf23398140ab0f618d560681a1e960b0cc8f8a7e4fb",
        ],
        b: [
            "29e8ead3b852b3621e8e4d050da3609753c1485f7846fdc2269485fa",
            "db4e263cb77eea7cd4c02c33c2c4cb46f7d2d5c95961ff22ca01e88f",
        ],
        mqv: "1767e9ac1cbc9548a8fdd83aa6311afdbcfcdb6a1597037ff6a7a220",
        sm2: "0cb3e6b06ddda747fa3ae25224a80c17cd909a36e9a3dd5007c74283",
    },
    Exchange {
        curve: Curve::NistP256,
        a: [
            "d8739d11c5ade569bd5361baee783f1c6597e2b026d0fa52430e1c23b30fb8ba",
            "cfb3087ecc35913d52f3f45c6c3357cf09d8b005edc5c84a1339753764d8e09c",
        ],
        b: [
            "95e3d6a23e6513783500b4a0f2e20a043beeba74979afe040b861d0bbf0be239",
            "334e7776a60e962a3847b5fe5bae1a584f65c19c62a4d70765ea11ceacc43ddb",
        ],
        mqv: "f3d102326cfecb24bd15338afa62f6f39e904cda45bfb6b929e0406d7e48e60d",
        sm2: "a4355a22f7fee0c8c145f77d844dabcbdd5331f51802cfd2c30c910cc84347fc",
    },
    Exchange {
        curve: Curve::NistP384,
        a: [
            "842edeeef92546e782d35064532adbaf6a3b95994f336e100fc17fd3771fd28887e6521733c632dad9ae54d9f3f7b86f",
            "be0f2adc2b2ba6763eafe12d2963792481f3b23b791041e0bcacf72c8ce3289e7a565b31a3a76259ba9444495b783d4d",
        ],
        b: [
            "29e8ead3b852a6ab3158d5d514524cf7f16956da93e1a8ee45f50220a149dff65a99210489bc5c1d483e2113ff899d8b",
            "db4e263cb77e417307ad71b1cbd16df6c0ff15ea89269f2730a0c2490b46b28c616217c9e0f94e9de0220517926fb906",
        ],
        mqv: "4e535d18ced7227f6b5b9e1220fdb24171865cd20f10ec766fd7885853881ed24b893b4959211f0ad580faddbf40bba2",
        sm2: "13c3f5e71e5fb1627d4b8d48d97ae855e0f2f769a8ee51e0a6f2d89421e705c4b823f53ef146cc4537175898f10e3ef8",
    },
    Exchange {
        curve: Curve::NistP521,
        a: [
            "002edeeef92546e782d35064532adbaf38dfe362e6f191be8b591d74a8585c26157fe28343bb5f9cea58194b26582c934ab891b99c680117c45eee59d9c840a28714",
            "000f2adc2b2ba6763eafe12d2963792470da620f8914c55338dc3c02ef33895435e88b1e8c87ab387e2512b91e3345a04eae2f3398d72e4a26a5e5b5ed6ecb412d68",
        ],
        b: [
            "01e8ead3b852a6ab3158d5d514524cf7ee53b8a5049a63b8c29f5fe5cf48e657111098e1043fec01460d7112a4dccc1b61c1ca068f0198065f4e4548c05a8d5ba49f",
            "014e263cb77e417307ad71b1cbd16df697fd3911cb3360df824f3d5d8f442aeffcdf13ecd6cf11a93fa2df95a75a4083b5bc1a3e38f158cc202c454c1e883bf6bb18",
        ],
        mqv: "0197cf247248445f04eda1cb66514b09d2a6cb7c742c4a2661121567c4de4b7e2900d77f8c6a634f0daf7699312b4f4113b787d6cdde51cb40ad01625c318a3474ba",
        sm2: "006099809eb38288088cbf5beba62b2cf3d0cdfedc0c13704d919aa30bf2a83c71e98032ce88827fa8bfe7ca6469ef4954212f3c93df3e9290e7dfd6afb7c069b6b3",
    },
    Exchange {
        curve: Curve::Sm2P256,
        a: [
            "b7a6406df92546e7fe9e069e7bbc93af27afce5bf18d8a0bd26f550439e8343c",
            "1d0540162b2ba67669925090f1503b253e191eda6080edb125763096488733b8",
        ],
        b: [
            "a3d67e06b852a6ab391538aaa3b31817102fd986d739476ddd15e0f2f7ecc163",
            "ecbdd185b77e41736e8667827fdb9bb35c3c7dee4f55727a7aabb41aec9708f9",
        ],
        mqv: "08d912998a96adf7a21bb57a2926789d699b9652e93b93fcf9a10d39dc56eb8d",
        sm2: "d2452a82f787f531df5314a9308e057bfadc6bbf78f1a82c107b56104b5e913e",
    },
];
