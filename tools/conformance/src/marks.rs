//! Marks of a recording, which are rules of nftables, as rvsd's `[[mark]]`.
//!
//! `ip daddr 198.18.0.0/24 tcp dport { 80, 443 } meta mark set 9` is two entries. In nftables all rules
//! are gone through and the last one that matches has set the mark; here the first one is it. So the
//! order is turned round.

use core::fmt::Write as _;
use serde::Deserialize;

/// A rule as recordings have it.
#[derive(Clone, Debug, Deserialize)]
pub struct Mark {
    #[serde(rename = "match")]
    matches: String,
    #[serde(rename = "mark")]
    set: u32,
    /// `ip` or `ip6`, of the table.
    family: Option<String>,
}

/// The entries for `marks`.
///
/// # Errors
///
/// The words of a rule that are not understood.
pub fn entries(marks: &[Mark]) -> Result<String, String> {
    let mut text = String::new();
    for mark in marks.iter().rev() {
        for keys in mark.keys()? {
            let _always = write!(text, "[[mark]]\nset = {}\n{keys}", mark.set);
        }
    }
    Ok(text)
}

impl Mark {
    /// The keys of each entry that this rule is.
    fn keys(&self) -> Result<Vec<String>, String> {
        let beyond = || format!("marks by {:?}", self.matches);
        let mut entries = vec![String::new()];
        let mut words = self.matches.split_whitespace();
        let mut has_address = false;
        let mut protocol = None;
        while let Some(word) = words.next() {
            let field = words.next().ok_or_else(beyond)?;
            let (key, values) = match (word, field) {
                ("ip" | "ip6", "saddr" | "daddr") => {
                    has_address = true;
                    let key = if field == "saddr" { "source" } else { "destination" };
                    (key, values(&mut words).ok_or_else(beyond)?)
                }
                ("tcp" | "udp" | "sctp", "sport" | "dport") => {
                    if protocol.replace(word).is_some_and(|other| other != word) {
                        return Err(beyond());
                    }
                    let key = if field == "sport" { "source_ports" } else { "destination_ports" };
                    (key, values(&mut words).ok_or_else(beyond)?)
                }
                ("ip", "protocol") | ("meta", "l4proto") => {
                    ("protocol", values(&mut words).ok_or_else(beyond)?)
                }
                ("iifname" | "iif", name) => ("link", vec![name.trim_matches('"').to_owned()]),
                _ => return Err(beyond()),
            };
            let values: Vec<String> = values
                .into_iter()
                .map(|value| match key {
                    "source" | "destination" if !value.contains('/') => {
                        let prefix = if value.contains(':') { 128 } else { 32 };
                        format!("{key} = \"{value}/{prefix}\"\n")
                    }
                    _ => format!("{key} = \"{value}\"\n"),
                })
                .collect();
            let each = entries.iter();
            entries = each
                .flat_map(|entry| values.iter().map(move |value| format!("{entry}{value}")))
                .collect();
        }
        let any = match self.family.as_deref() {
            Some("ip") => "destination = \"0.0.0.0/0\"\n",
            Some("ip6") => "destination = \"::/0\"\n",
            _ => "",
        };
        for entry in &mut entries {
            if let Some(protocol) = protocol
                && !entry.contains("protocol = ")
            {
                let _always = writeln!(entry, "protocol = \"{protocol}\"");
            }
            if !has_address {
                entry.push_str(any);
            }
        }
        Ok(entries)
    }
}

/// One value, or those of a set in braces.
fn values<'w>(words: &mut impl Iterator<Item = &'w str>) -> Option<Vec<String>> {
    let first = words.next().filter(|first| !["!=", "<", ">"].contains(first))?;
    if !first.starts_with('{') {
        return Some(vec![first.to_owned()]);
    }
    let mut set = first.to_owned();
    while !set.ends_with('}') {
        set.push_str(words.next()?);
    }
    let inside = set.trim_matches(['{', '}']);
    Some(inside.split(',').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(matches: &str, family: Option<&str>) -> Result<String, String> {
        let family = family.map(str::to_owned);
        entries(&[Mark { matches: matches.to_owned(), set: 9, family }])
    }

    #[test]
    fn a_rule_of_nftables_becomes_entries_that_look_for_the_same() {
        let told = of("ip daddr 198.18.0.0/24 tcp dport { 80, 8000-8999 }", Some("ip"));
        let net = "[[mark]]\nset = 9\ndestination = \"198.18.0.0/24\"\n";
        let ports = |ports| format!("{net}destination_ports = \"{ports}\"\nprotocol = \"tcp\"\n");
        assert_eq!(told.unwrap(), format!("{}{}", ports("80"), ports("8000-8999")));
        let told = of("udp sport 53", Some("ip6")).unwrap();
        let rest = "source_ports = \"53\"\nprotocol = \"udp\"\ndestination = \"::/0\"\n";
        assert_eq!(told, format!("[[mark]]\nset = 9\n{rest}"));
        let told = of("ip saddr 192.0.2.1 iifname \"dc\"", None).unwrap();
        assert_eq!(told, "[[mark]]\nset = 9\nsource = \"192.0.2.1/32\"\nlink = \"dc\"\n");
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let what = "ip daddr != 10.0.0.1";
        assert_eq!(of(what, None), Err(format!("marks by {what:?}")));
        assert!(of("ct state new", None).is_err());
        assert!(of("ip daddr", None).is_err());
    }

    #[test]
    fn the_last_rule_comes_first() {
        let mark = |set| Mark { matches: "ip daddr 10.0.0.0/8".to_owned(), set, family: None };
        let told = entries(&[mark(1), mark(2)]).unwrap();
        assert!(told.find("set = 2") < told.find("set = 1"), "{told}");
    }
}
