//! RSA keys that everybody knows, for objects that are the same on both sides. They protect nothing.

/// A key: bits of the modulus, the modulus, one prime; hexadecimal.
pub const RSA: [(u16, &str, &str); 3] = [
    (
        1024,
        "cf74d8e3bfdbc91aa6d376cf7b6e19c6edb9475a292a0110c6952033c3c1b462280185b80671339ab74e56fb6e6adce9\
         0c99cb1e95fbba5057d98855ce50fe29e0696ff8103301ce35bef44be43464e78a3a133321c7cf6fe626f7f8b927f4a9\
         5de496cdfaf5c69caf640e19324e3ac964d0f612d3e5139b3f18b69813f9692f",
        "fd11a289ba09000f1a2cc0a10e2477b2403ee00795b2b8b92d6d2f844c377668c6e2f8b2605dfa13618d63aeec306332\
         9269bbd36152614ab18d6673694ebf83",
    ),
    (
        2048,
        "ed2d33640e675806e0c18c884a180c0c1b73cbd8c4b3ee827eb50ebbd6f2c559987ba5a26da9a7eeb0e03585a22a53ff\
         65057ef998bdf04d9769fcc64420601f9f9f19cb7f2b15f23738108dcc4d0972e8652280f20e7754291a138a330e5b32\
         27e69cc01a168d5e2e855a28bbf70a970e089afb56902e63c480232df348e34d4412b72e2c6329777e3fbb333ea41654\
         2cd4606f467f9ad0187bab88b9f6ff1a8a4ef99752040153ada9a074a4d4a08c5c43b9e5061b5a364d07ce9bb4f4d7ce\
         77509edb25e806155c7a0ed17f419abacc1ffeed559deba585fbca9b86053b5f8a8469b067ce4f41d0f8a7424c9a2538\
         a390886b351ece5d38d534f602f06b6b",
        "f80338db44b67bf36a56296480f1a4a1cffe7b9f5d153227c6fa216a5a86b035a5f4df43089c5f1701829d150bc3a102\
         0ad080305026a4a4b4b4c88d38868eb24d160838bcb62defaaec88a27d75a9e36dfe1a995fd348b58bf6a5d41a368206\
         e33b2889df1bfaf7dce3c627964ec9a3d2b19072a23a637f2ddb3e75d1a2a7dd",
    ),
    (
        3072,
        "d0d6802848f48527517811c1e6557611e929fabebfc2ec49897989f1be7de823eb9e447ec418b096dbb67e02186031a8\
         7383c9136cc21b6c32c0b0f5b64b28363c958012c5bf29be411c5a91a64b2522e7c9c4a7f5ef99da04a89c80bad1874a\
         235abe5ac20bf0cda62109022455ce5a9ffa7852bf29a17e709999df0c2b6583ddf297f894b5446e6837ec94ed7d1f80\
         e2c0713527147e8f4f132dfe9347b0ef5c17a5ca9b080fcfdd619587162b871956bbda12f9cd42adfa278fc73a3e95af\
         821bb4822a8f728a81dc05edba5ddead7cc811f1c65e1dc4bdd35259a130e1eb6cfcdcfe0ca9cd16d3286642fac6a139\
         2e17dae639d1f59523b74997e92de404025dc3df8bc62989eac3285e1494d03673cdb2e9e3098c0b075b2d3a2ec78c51\
         928a869df0beec9040f4587d983748589a43eaea31ea820a56d33d402c9b9b3b469f3f3ebf20b2c7257e0d255e02322b\
         d4aeb27ec061fb31958dbfef4d8f2dd105e5d762be354f4a8700512f6ba0149774ec2c2e5073724101d118c64f0fc5b7",
        "f80c8da26d800971d47b9cbc565143feb42927ad8fa0de37ba10541b4998c68194f0e2cdfec25573d91b04f74899dff2\
         a06815f809be9f51f8cb9bbaa430f3a8f65029871a01e5f8cf32bd302de26f98dd29ea40501a63c748d0c7b5fb60227e\
         b9740b07fad59f0f456b9b7b344d138bb5fa9dfcba63c3adfd40a4dd0a2c9305f12732702e2a315b63f2a194e0283803\
         096c81a39f868203fa40fe858b5c60df0329c3ff9bf28929577836cfa4ee225401e4cddfe3edec43249809492f1d0161",
    ),
];

/// Modulus and prime of a key of so many bits.
pub fn rsa(bits: u16) -> (Vec<u8>, Vec<u8>) {
    let bytes = |text: &str| hex::decode(text).unwrap_or_default();
    RSA.iter().find(|k| k.0 == bits).map(|(_, n, p)| (bytes(n), bytes(p))).unwrap_or_default()
}

/// The private scalar of the `n`th ECC key, as long as the curve's.
pub fn scalar(n: u8, size: usize) -> Vec<u8> {
    let mut scalar = vec![n.wrapping_add(1); size];
    // Well below the order of every curve of this size.
    scalar[0] = 0;
    scalar
}

/// The public point of a scalar, on the curves that this client computes on.
pub fn point(curve: u16, scalar: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let sec1 = match curve {
        3 => p256::SecretKey::from_slice(scalar).ok()?.public_key().to_sec1_bytes(),
        4 => p384::SecretKey::from_slice(scalar).ok()?.public_key().to_sec1_bytes(),
        _ => return None,
    };
    let (x, y) = sec1.get(1..)?.split_at(scalar.len());
    Some((x.to_vec(), y.to_vec()))
}
