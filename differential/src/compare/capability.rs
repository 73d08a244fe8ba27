//! `TPM2_GetCapability`: entry by entry, as far as both lists go.

use super::What;
use super::fields::Cursor;
use std::collections::BTreeMap;
use vtpm_protocol::tpm::TpmCap;

/// A list: the number that an entry is asked for by, and what is told of it.
struct List {
    more: bool,
    capability: TpmCap,
    entries: BTreeMap<u64, Vec<u8>>,
}

fn read(bytes: &[u8]) -> List {
    let mut c = Cursor::new(bytes);
    let more = c.number(1) != 0;
    let capability = TpmCap(c.number(4) as u32);
    let count = c.number(4);
    let mut entries = BTreeMap::new();
    for _ in 0..count.min(1024) {
        let (key, value) = match capability {
            TpmCap::ALGS => (c.number(2), c.bytes(4)),
            TpmCap::COMMANDS => {
                let attributes = c.bytes(4);
                let n = attributes.iter().fold(0, |acc, b| acc << 8 | u64::from(*b));
                // The index and the V bit are what it is asked for by.
                (n & 0x2000_ffff, attributes)
            }
            TpmCap::PCRS => {
                let bank = c.number(2);
                let size = c.number(1) as usize;
                (bank, c.bytes(size))
            }
            TpmCap::TPM_PROPERTIES => (c.number(4), c.bytes(4)),
            TpmCap::PCR_PROPERTIES => {
                let property = c.number(4);
                let size = c.number(1) as usize;
                (property, c.bytes(size))
            }
            TpmCap::ECC_CURVES => (c.number(2), c.bytes(0)),
            TpmCap::AUTH_POLICIES => {
                let handle = c.number(4);
                let alg = c.number(2) as u16;
                let size = vtpm_protocol::tpm::hash_size(vtpm_protocol::tpm::TpmAlgId(alg));
                (handle, c.bytes(size.unwrap_or_default()))
            }
            TpmCap::HANDLES => {
                let handle = c.number(4);
                // The numbers of transient objects are each TPM's own affair, but not how many there are.
                let transient = handle >> 24 == 0x80;
                (if transient { 0x8000_0000 + entries.len() as u64 } else { handle }, c.bytes(0))
            }
            TpmCap::ACT => (c.number(4), c.bytes(8)),
            _ => (c.number(4), c.bytes(0)),
        };
        entries.insert(key, value.to_vec());
    }
    if !c.rest().is_empty() {
        entries.insert(u64::MAX, c.rest().to_vec());
    }
    List { more, capability, entries }
}

pub fn compare(theirs: &[u8], ours: &[u8], found: &mut Vec<What>) {
    let [theirs, ours] = [read(theirs), read(ours)];
    let name = format!("{:?}", ours.capability);
    // A list that goes on elsewhere says nothing about what comes behind its last entry.
    let end = [&theirs, &ours]
        .iter()
        .filter(|l| l.more)
        .map(|l| l.entries.keys().next_back().map_or(0, |k| k + 1))
        .min()
        .unwrap_or(u64::MAX);
    let keys = theirs.entries.keys().chain(ours.entries.keys());
    let mut keys: Vec<_> = keys.copied().filter(|k| *k < end || end == u64::MAX).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut same = true;
    for key in keys {
        let text = |list: &List| list.entries.get(&key).map_or("not there".into(), hex::encode);
        let (a, b) = (text(&theirs), text(&ours));
        // Which commands there are, the table of a run tells.
        let one_sided = theirs.entries.contains_key(&key) != ours.entries.contains_key(&key);
        if one_sided && ours.capability == TpmCap::COMMANDS {
            same = false;
        } else if a != b {
            same = false;
            found.push(What::Field(format!("{name} {key:#x}"), a, b));
        }
    }
    if same && theirs.entries.keys().eq(ours.entries.keys()) && theirs.more != ours.more {
        found.push(What::Field("moreData".into(), theirs.more.to_string(), ours.more.to_string()));
    }
}
