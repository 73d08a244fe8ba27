//! The comparison of one field.

use super::What;
use super::capability;
use super::layout::Field;
use crate::bytes::{OURS, Pair, THEIRS, take, take_2b, take_number};
use crate::client::Call;
use vtpm_protocol::tpm::TpmAlgId as A;
use vtpm_protocol::tpm::{TpmSt, hash_size};

/// Reads a response from front to back; what is not there reads as nothing.
pub struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn number(&mut self, n: usize) -> u64 {
        take_number(&mut self.0, n).unwrap_or_else(|| {
            self.0 = &[];
            0
        })
    }

    pub fn b2(&mut self) -> &'a [u8] {
        take_2b(&mut self.0).unwrap_or_else(|| std::mem::take(&mut self.0))
    }

    pub fn bytes(&mut self, n: usize) -> &'a [u8] {
        take(&mut self.0, n).unwrap_or_else(|| std::mem::take(&mut self.0))
    }

    pub fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// One comparison in progress.
struct Fields<'a, 'b> {
    name: &'a str,
    call: &'a Call,
    sides: &'a mut Pair<Cursor<'b>>,
    found: &'a mut Vec<What>,
}

impl Fields<'_, '_> {
    fn differs(&mut self, part: &str, theirs: &[u8], ours: &[u8]) {
        let name = if part.is_empty() { self.name.to_owned() } else { format!("{}.{part}", self.name) };
        self.found.push(What::Field(name, hex::encode(theirs), hex::encode(ours)));
    }

    fn number(&mut self, part: &str, n: usize) -> u64 {
        let [theirs, ours] = [self.sides[THEIRS].number(n), self.sides[OURS].number(n)];
        if theirs != ours {
            self.differs(part, &theirs.to_be_bytes()[8 - n..], &ours.to_be_bytes()[8 - n..]);
        }
        theirs
    }

    fn b2(&mut self, part: &str, equal: bool) {
        let [theirs, ours] = [self.sides[THEIRS].b2(), self.sides[OURS].b2()];
        if equal && theirs != ours || theirs.len() != ours.len() {
            self.differs(part, theirs, ours);
        }
    }

    fn bytes(&mut self, part: &str, n: usize, equal: bool) {
        let [theirs, ours] = [self.sides[THEIRS].bytes(n), self.sides[OURS].bytes(n)];
        if equal && theirs != ours || theirs.len() != ours.len() {
            self.differs(part, theirs, ours);
        }
    }

    fn rest(&mut self, part: &str, equal: bool) {
        let [theirs, ours] = [self.sides[THEIRS].all(), self.sides[OURS].all()];
        if equal && theirs != ours || theirs.len() != ours.len() {
            self.differs(part, theirs, ours);
        }
    }

    /// Runs `f` on what is in a `TPM2B`.
    fn inside(&mut self, f: impl FnOnce(&mut Fields<'_, '_>)) {
        let mut inner = [Cursor(self.sides[THEIRS].b2()), Cursor(self.sides[OURS].b2())];
        let mut fields =
            Fields { name: self.name, call: self.call, sides: &mut inner, found: &mut *self.found };
        f(&mut fields);
        fields.rest("more than its parts", true);
    }

    /// `TPMT_PUBLIC`: the unique part is what is left when all others are read, so that no parameters need to be taken apart.
    fn public(&mut self) {
        let known = self.call.known;
        let alg = A(self.number("type", 2) as u16);
        self.number("nameAlg", 2);
        self.number("objectAttributes", 4);
        self.b2("authPolicy", true);
        if alg != A::KEYEDHASH {
            let symmetric = A(self.number("symmetric", 2) as u16);
            if symmetric != A::NULL {
                self.number("symmetric.keyBits", 2);
                self.number("symmetric.mode", 2);
            }
        }
        if alg != A::SYMCIPHER {
            self.scheme("scheme");
        }
        match alg {
            A::RSA => {
                self.number("keyBits", 2);
                self.number("exponent", 4);
            }
            A::ECC => {
                self.number("curveID", 2);
                self.scheme("kdf");
                self.b2("unique.x", known);
            }
            _ => {}
        }
        self.b2("unique", known);
    }

    fn scheme(&mut self, part: &str) {
        match A(self.number(part, 2) as u16) {
            A::NULL | A::RSAES => {}
            A::XOR | A::ECDAA => {
                self.number(part, 4);
            }
            _ => {
                self.number(part, 2);
            }
        }
    }

    fn creation(&mut self) {
        let banks = self.number("pcrSelect", 4);
        (0..banks.min(16)).for_each(|_| self.bytes("pcrSelect", 6, true));
        self.b2("pcrDigest", true);
        self.number("locality", 1);
        self.number("parentNameAlg", 2);
        self.b2("parentName", self.call.known);
        self.b2("parentQualifiedName", self.call.known);
        self.b2("outsideInfo", true);
    }

    fn attest(&mut self) {
        let known = self.call.known;
        self.number("magic", 4);
        let tag = TpmSt(self.number("type", 2) as u16);
        self.b2("qualifiedSigner", false);
        self.b2("extraData", true);
        // The clock and the counters are another's, and often obfuscated.
        self.bytes("clockInfo", 8 + 4 + 4, false);
        self.number("safe", 1);
        self.bytes("firmwareVersion", 8, false);
        match tag {
            TpmSt::ATTEST_QUOTE => {
                let banks = self.number("pcrSelect", 4);
                (0..banks.min(16)).for_each(|_| self.bytes("pcrSelect", 6, true));
                self.b2("pcrDigest", true);
            }
            TpmSt::ATTEST_CERTIFY => {
                self.b2("name", known);
                self.b2("qualifiedName", false);
            }
            TpmSt::ATTEST_CREATION => {
                self.b2("objectName", known);
                self.b2("creationHash", known);
            }
            TpmSt::ATTEST_COMMAND_AUDIT => {
                self.number("auditCounter", 8);
                self.number("digestAlg", 2);
                self.b2("auditDigest", false);
                self.b2("commandDigest", true);
            }
            TpmSt::ATTEST_SESSION_AUDIT => {
                self.number("exclusiveSession", 1);
                self.b2("sessionDigest", false);
            }
            TpmSt::ATTEST_TIME => self.bytes("time", 8 + 17 + 8, false),
            TpmSt::ATTEST_NV => {
                self.b2("indexName", true);
                self.number("offset", 2);
                self.b2("nvContents", true);
            }
            TpmSt::ATTEST_NV_DIGEST => {
                self.b2("indexName", true);
                self.b2("nvDigest", true);
            }
            _ => {}
        }
    }

    fn signature(&mut self, same_data: bool) {
        let known = same_data && self.call.known;
        let scheme = A(self.number("scheme", 2) as u16);
        if scheme == A::NULL {
            return;
        }
        let hash = A(self.number("hash", 2) as u16);
        match scheme {
            A::RSASSA | A::RSAPSS => self.b2("sig", known && scheme == A::RSASSA),
            A::HMAC => self.bytes("hmac", hash_size(hash).unwrap_or_default(), known),
            _ => {
                self.b2(if scheme == A::ECDAA { "r of ECDAA" } else { "r" }, false);
                self.b2("s", false);
            }
        }
    }

    fn field(&mut self, field: Field) {
        let known = self.call.known;
        match field {
            Field::Number(n) => {
                self.number("", n);
            }
            Field::AnyNumber(n) => self.bytes("", n, false),
            // Bytes that were changed behind the client's back may also be those of a session.
            Field::Equal => self.b2("", self.call.edits.is_empty()),
            Field::Known => self.b2("", known),
            Field::Message => self.b2("", known || self.call.mutation.is_empty()),
            Field::Random => self.b2("", false),
            Field::Any => self.sides.iter_mut().for_each(|s| {
                s.b2();
            }),
            Field::Public => self.inside(|f| f.public()),
            Field::Creation => {
                let [theirs, ours] = [0, 1].map(|s| Cursor(self.sides[s].rest()).b2());
                self.inside(|f| f.creation());
                self.b2("hash", theirs == ours);
            }
            Field::Ticket => {
                self.number("tag", 2);
                self.number("hierarchy", 4);
                self.b2("digest", false);
            }
            Field::Signature => self.signature(true),
            Field::AttestSignature => self.signature(false),
            Field::Attest => self.inside(|f| f.attest()),
            Field::Context => {
                self.bytes("sequence", 8, false);
                self.number("savedHandle", 4);
                self.number("hierarchy", 4);
                self.sides.iter_mut().for_each(|s| {
                    s.b2();
                });
            }
            Field::Capability => {
                let [theirs, ours] = [self.sides[THEIRS].all(), self.sides[OURS].all()];
                capability::compare(theirs, ours, self.found);
            }
            Field::Rest => self.rest("", known),
        }
    }
}

/// Compares a field, which each side's cursor stands before.
pub fn compare(field: Field, name: &str, call: &Call, sides: &mut Pair<Cursor<'_>>, found: &mut Vec<What>) {
    Fields { name, call, sides, found }.field(field);
}
