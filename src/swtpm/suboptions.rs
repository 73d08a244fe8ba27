//! Values of options that are lists themselves: `name=value,name,name=value`.

use std::os::fd::RawFd;
use std::str::FromStr;

use super::error::SwtpmError;

/// The value of one option.
pub(super) struct SubOptions {
    option: &'static str,
    given: Vec<(&'static str, String)>,
}

impl SubOptions {
    /// Reads `text`, in which only `names` may stand.
    pub(super) fn parse(
        option: &'static str,
        names: &'static [&'static str],
        text: &str,
    ) -> Result<Self, SwtpmError> {
        let mut given = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "true"));
            let Some(&name) = names.iter().find(|&&known| known == name) else {
                return Err(SwtpmError::SubOption { option, name: part.to_owned() });
            };
            given.push((name, value.to_owned()));
        }
        Ok(Self { option, given })
    }

    /// The text of the last one of this name.
    pub(super) fn text(&self, name: &'static str) -> Option<&str> {
        self.given.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    fn read<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, SwtpmError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| self.wrong(name, text))
    }

    pub(super) fn wrong(&self, name: &'static str, value: &str) -> SwtpmError {
        SwtpmError::Value { option: self.option, name, value: value.to_owned() }
    }

    pub(super) const fn needs(&self, needs: &'static str) -> SwtpmError {
        SwtpmError::Needs { option: self.option, needs }
    }

    pub(super) fn unsupported(&self, name: &str, reason: &'static str) -> SwtpmError {
        SwtpmError::Unsupported { option: format!("{} {name}", self.option), reason }
    }

    /// A number.
    pub(super) fn number<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, SwtpmError> {
        self.read(name, |text| text.parse().ok())
    }

    /// The number of a descriptor, of which the first three are none that could be meant.
    pub(super) fn descriptor(&self, name: &'static str) -> Result<Option<RawFd>, SwtpmError> {
        self.read(name, |text| text.parse().ok().filter(|&fd| fd > 2))
    }

    /// Permission bits, in octal digits.
    pub(super) fn mode(&self, name: &'static str) -> Result<Option<u32>, SwtpmError> {
        self.read(name, |text| u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o777))
    }

    /// Whether it is set.
    pub(super) fn flag(&self, name: &'static str) -> Result<bool, SwtpmError> {
        let flag = self.read(name, |text| match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?;
        Ok(flag.unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_unknown_names_and_wrong_values_refused() {
        const NAMES: &[&str] = &["file", "fd", "mode", "remove"];
        let sub = SubOptions::parse("--key", NAMES, "file=/a=b,remove,mode=0640,fd=3").unwrap();
        assert_eq!((sub.text("file"), sub.mode("mode").unwrap()), (Some("/a=b"), Some(0o640)));
        assert_eq!((sub.flag("remove").unwrap(), sub.descriptor("fd").unwrap()), (true, Some(3)));
        let error = SubOptions::parse("--key", NAMES, "fil=x").err().unwrap();
        assert_eq!(error.to_string(), "--key: unknown option 'fil=x'");
        for text in ["mode=8", "mode=7777", "fd=2", "fd=x", "remove=maybe"] {
            let sub = SubOptions::parse("--key", NAMES, text).unwrap();
            assert!(
                sub.mode("mode").is_err() || sub.descriptor("fd").is_err() || sub.flag("remove").is_err()
            );
        }
    }
}
