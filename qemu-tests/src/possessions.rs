//! What a guest keeps in its TPM, made and checked with tpm2-tools in the guest.

use crate::error::{Error, Result, ensure, same};
use crate::guest::Guest;

const PCR: &str = "11";
const DATA: &str = "0x1500010";
const COUNTER: &str = "0x1500011";
const SIGNING_KEY: &str = "0x81000010";
const SEALED: &str = "0x81000011";
const SECRET: &str = "the sealed secret of this guest";

/// An extended PCR, an NV index with data, a counter, a persistent signing key, a secret sealed to the PCR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possessions {
    pcr: String,
    event: String,
    data: String,
    counter: u64,
    public: String,
}

impl Possessions {
    /// Makes them in a TPM that has none of them yet. `event` is what the PCR is extended with, 64 hexadecimal digits;
    /// `data` goes into the NV index.
    ///
    /// # Errors
    /// [`Error::Status`] if any of the tools fails.
    pub fn make(guest: &mut Guest, event: &str, data: &str) -> Result<Self> {
        guest.shell(&format!(
            "cd /root
             tpm2_pcrextend {PCR}:sha256={event}
             printf %s '{data}' >data
             tpm2_nvdefine {DATA} -C o -s {} -a 'ownerread|ownerwrite|authread|authwrite'
             tpm2_nvwrite {DATA} -C o -i data
             tpm2_nvdefine {COUNTER} -C o -a 'ownerread|ownerwrite|authread|authwrite|nt=counter'
             tpm2_nvincrement {COUNTER} -C o
             tpm2_nvincrement {COUNTER} -C o
             tpm2_createprimary -Q -C o -g sha256 -G ecc -c primary
             tpm2_create -Q -C primary -g sha256 -G ecc:ecdsa -u key.pub -r key.priv
             tpm2_load -Q -C primary -u key.pub -r key.priv -c key
             tpm2_evictcontrol -Q -C o -c key {SIGNING_KEY}
             tpm2_createpolicy -Q --policy-pcr -l sha256:{PCR} -L policy
             printf %s '{SECRET}' | tpm2_create -Q -C primary -L policy -i - -u sealed.pub -r sealed.priv
             tpm2_load -Q -C primary -u sealed.pub -r sealed.priv -c sealed
             tpm2_evictcontrol -Q -C o -c sealed {SEALED}",
            data.len()
        ))?;
        let mut made = Self {
            pcr: pcr(guest)?,
            event: event.to_owned(),
            data: data.to_owned(),
            counter: counter(guest)?,
            public: String::new(),
        };
        made.public = public(guest)?;
        made.check(guest)?;
        Ok(made)
    }

    /// Everything is there, the secret can be unsealed, the key is the same and signs.
    ///
    /// # Errors
    /// [`Error::Differs`] if something is not as it was, [`Error::Status`] if a tool fails.
    pub fn check(&self, guest: &mut Guest) -> Result<()> {
        same("the PCR", &pcr(guest)?, &self.pcr)?;
        self.check_durable(guest)?;
        same("the unsealed secret", &unseal(guest)?.as_str(), &SECRET)
    }

    /// After a reset of the machine: what is durable is there; the PCR is zero, so that the secret cannot be unsealed
    /// until the same event is measured again.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_after_reset(&self, guest: &mut Guest) -> Result<()> {
        same("the PCR after a reset", &pcr(guest)?, &"0".repeat(64))?;
        self.check_durable(guest)?;
        match unseal(guest) {
            Err(Error::Status { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => return Err(Error::Differs("the secret could be unsealed without its PCR".into())),
        }
        guest.run(&["tpm2_pcrextend", &format!("{PCR}:sha256={}", self.event)])?;
        // The PCR may have been extended more than once since it was made.
        if pcr(guest)? == self.pcr {
            same("the unsealed secret", &unseal(guest)?.as_str(), &SECRET)?;
        }
        Ok(())
    }

    /// Counts once more, so that a later check sees a state that did not come from before.
    ///
    /// # Errors
    /// [`Error::Differs`] if the counter did not increase by one.
    pub fn count(&mut self, guest: &mut Guest) -> Result<()> {
        guest.run(&["tpm2_nvincrement", COUNTER, "-C", "o"])?;
        self.counter = self.counter.wrapping_add(1);
        same("the counter", &counter(guest)?, &self.counter)
    }

    fn check_durable(&self, guest: &mut Guest) -> Result<()> {
        same("the NV data", &guest.run(&["tpm2_nvread", DATA, "-C", "o"])?, &self.data)?;
        same("the counter", &counter(guest)?, &self.counter)?;
        same("the public part of the key", &public(guest)?, &self.public)?;
        guest
            .shell(&format!(
                "cd /tmp; head -c 100 /dev/urandom >message
                 tpm2_sign -Q -c {SIGNING_KEY} -g sha256 -o signature message
                 tpm2_verifysignature -Q -c {SIGNING_KEY} -g sha256 -m message -s signature
                 echo no >message
                 if tpm2_verifysignature -Q -c {SIGNING_KEY} -g sha256 -m message -s signature 2>/dev/null
                 then echo 'a signature of another message was accepted' >&2; exit 1; fi"
            ))
            .map(drop)
    }
}

fn pcr(guest: &mut Guest) -> Result<String> {
    let all = guest.pcrs("sha256")?;
    let index: usize = PCR.parse().unwrap_or_default();
    all.get(index).cloned().ok_or_else(|| Error::Differs(format!("only {} PCRs", all.len())))
}

fn counter(guest: &mut Guest) -> Result<u64> {
    let text = guest.shell(&format!("tpm2_nvread {COUNTER} -C o | od -An -v -tx1 | tr -d ' \\n'"))?;
    u64::from_str_radix(text.trim(), 16).map_err(|_| Error::Format { what: "the counter".into(), text })
}

fn public(guest: &mut Guest) -> Result<String> {
    let pem =
        guest.shell(&format!("tpm2_readpublic -Q -c {SIGNING_KEY} -f pem -o /tmp/pem; cat /tmp/pem"))?;
    ensure(pem.contains("PUBLIC KEY"), "no public key in PEM")?;
    Ok(pem)
}

fn unseal(guest: &mut Guest) -> Result<String> {
    guest.run(&["tpm2_unseal", "-c", SEALED, "-p", &format!("pcr:sha256:{PCR}")])
}
