//! A reader of the OpenMetrics text format, version 1.0, that takes nothing which the format does not allow, of what is used here.

use std::collections::{BTreeMap, BTreeSet};

/// A family of metrics.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
}

/// The name and labels of a sample, the labels in the order of their names.
type Series = (String, BTreeMap<String, String>);

/// What was read.
#[derive(Debug, Default)]
pub struct Exposition {
    pub families: BTreeMap<String, Family>,
    samples: BTreeMap<Series, f64>,
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `{a="b",c="d"}` with what is behind it.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (found, text) };
    loop {
        let (name, behind) = rest.split_once("=\"").unwrap();
        assert!(is_name(name), "{text}");
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        assert!(found.insert(name.to_owned(), value).is_none(), "{text}");
        rest = &behind[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (found, more),
            other => panic!("{other:?}"),
        }
    }
}

impl Exposition {
    /// Reads a whole exposition.
    pub fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("it has an end");
        assert!(!body.contains("# EOF"));
        let mut found = Self::default();
        let mut current = String::new();
        let mut closed = BTreeSet::new();
        for line in body.lines() {
            assert!(!line.is_empty() && line.trim() == line, "{line:?}");
            if let Some(meta) = line.strip_prefix("# ") {
                let [word, name, rest] = meta.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                    panic!("{line}")
                };
                assert!(is_name(name), "{line}");
                if current != name {
                    assert!(closed.insert(current), "families do not come in pieces: {line}");
                    current = name.to_owned();
                }
                let family = found.families.entry(current.clone()).or_default();
                let place = match word {
                    "HELP" => &mut family.help,
                    "TYPE" => &mut family.kind,
                    _ => panic!("{line}"),
                };
                assert!(place.is_empty(), "{line}");
                *place = rest.to_owned();
                continue;
            }
            let end = line.find(['{', ' ']).unwrap();
            let (name, rest) = line.split_at(end);
            let (labels, rest) = labels(rest);
            let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap();
            let suffixes: &[&str] = match found.families[&current].kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                other => panic!("{other}"),
            };
            let suffix = name.strip_prefix(current.as_str()).unwrap();
            assert!(suffixes.contains(&suffix), "{line}");
            let negative = suffix.is_empty();
            assert!(negative || value >= 0.0, "{line}");
            assert!(found.samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
        assert!(found.families.values().all(|family| !family.kind.is_empty() && !family.help.is_empty()));
        found.check_histograms();
        found
    }

    /// Buckets grow, and the last one has them all.
    fn check_histograms(&self) {
        for (name, _) in self.families.iter().filter(|(_, family)| family.kind == "histogram") {
            let of = |suffix: &str| {
                let wanted = format!("{name}{suffix}");
                self.samples.iter().filter(move |((found, _), _)| *found == wanted)
            };
            let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((_, labels), value) in of("_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").unwrap().parse().unwrap();
                buckets.entry(labels).or_default().push((bound, *value));
            }
            assert_eq!(of("_count").count(), buckets.len(), "{name}");
            for ((_, labels), count) in of("_count") {
                let buckets = buckets.get_mut(labels).unwrap();
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name} {labels:?}");
                assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{name} {labels:?}");
            }
        }
    }

    /// The value of a sample; 0 where there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied().unwrap_or(0.0)
    }

    /// All samples of that name, with the label that is asked for.
    pub fn by(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        let of = self.samples.iter().filter(|((found, _), _)| found == name);
        of.map(|((_, labels), value)| (labels[label].clone(), *value)).collect()
    }

    /// The sum of all samples of that name which have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| found.get(*name).is_some_and(|v| v == value))
        };
        self.samples.iter().filter(|((n, l), _)| n == name && has(l)).map(|(_, value)| value).sum()
    }

    /// The labels that there are, of all samples.
    pub fn label_names(&self) -> BTreeSet<&str> {
        self.samples.keys().flat_map(|(_, labels)| labels.keys()).map(String::as_str).collect()
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }
}
