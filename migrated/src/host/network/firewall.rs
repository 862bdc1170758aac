//! What of a host's packet rules drops the packets of guests that have moved: chains that drop whatever no rule of theirs
//! lets pass, as docker and ufw make them.
//!
//! The rules of such a chain are not followed to their end. One that names the guest's bridge or the tunnels' devices was
//! written by somebody who knows, and then nothing is said.

use serde_json::Value;

/// What drops the packets between the devices `move*` and the bridges, from what nft says in JSON (libnftables-json(5)).
pub fn obstacles(ruleset: &str, bridges: &[&str]) -> Vec<String> {
    let Ok(ruleset) = serde_json::from_str::<Value>(ruleset) else { return Vec::new() };
    let objects: Vec<&Value> = ruleset["nftables"].as_array().into_iter().flatten().collect();
    let chains = objects.iter().filter_map(|object| object.get("chain")).filter(|chain| drops(chain));
    let rules: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let knows = |chain: &Value| {
        let is_near = |rule: &&&Value| ["family", "table"].iter().all(|key| rule[*key] == chain[*key]);
        rules.iter().filter(is_near).any(|rule| names(&rule["expr"], bridges))
    };
    chains.filter(|chain| !knows(chain)).map(|chain| words(chain, bridges)).collect()
}

/// A chain that every forwarded IPv4 packet passes, and that drops what is left in the end.
fn drops(chain: &Value) -> bool {
    chain["hook"] == "forward"
        && chain["policy"] == "drop"
        && chain["type"] == "filter"
        && (chain["family"] == "ip" || chain["family"] == "inet")
}

/// Whether a rule names a bridge, or devices of tunnels.
fn names(rule: &Value, bridges: &[&str]) -> bool {
    match rule {
        Value::String(word) => bridges.contains(&word.as_str()) || word.starts_with("move"),
        Value::Array(list) => list.iter().any(|one| names(one, bridges)),
        Value::Object(fields) => fields.values().any(|one| names(one, bridges)),
        _ => false,
    }
}

fn words(chain: &Value, bridges: &[&str]) -> String {
    let word = |key: &str| chain[key].as_str().unwrap_or_default();
    let place = format!("{} {} {}", word("family"), word("table"), word("name"));
    let devices: Vec<String> = bridges.iter().map(|bridge| format!("\"{bridge}\"")).collect();
    let devices = format!("{{ {}, \"move*\" }}", devices.join(", "));
    format!(
        "the firewall's chain `{place}` drops forwarded packets that no rule lets pass, and none names {}: the guest may \
         be unreachable after the move; let packets from and to these and the devices move* pass, for example by `nft insert \
         rule {place} iifname {devices} accept` and the same with oifname",
        bridges.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::obstacles;
    use serde_json::{Value, json};

    fn ruleset(chain: &Value, expr: &Value) -> String {
        let rule = json!({ "family": "ip", "table": "filter", "chain": "USER", "expr": expr });
        json!({ "nftables": [{ "metainfo": {} }, { "chain": chain }, { "rule": rule }] }).to_string()
    }

    #[test]
    fn a_chain_that_drops_what_is_forwarded_is_named_unless_somebody_thought_of_the_bridge() {
        let chain = json!({
            "family": "ip", "table": "filter", "name": "FORWARD", "type": "filter", "hook": "forward", "policy": "drop"
        });
        let other = json!([{ "match": { "right": "docker0" } }, { "accept": null }]);
        let found = obstacles(&ruleset(&chain, &other), &["br0"]);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("`ip filter FORWARD`") && found[0].contains("\"br0\", \"move*\""),
            "{found:?}"
        );
        let by_set = json!([{ "match": { "right": { "set": ["move*"] } } }]);
        for known in [json!([{ "match": { "right": "br0" } }]), by_set] {
            assert_eq!(obstacles(&ruleset(&chain, &known), &["br0"]), [""; 0]);
        }
        let harmless = [
            ("policy", "accept"),
            ("hook", "input"),
            ("family", "bridge"),
            ("family", "ip6"),
            ("type", "nat"),
        ];
        for (key, value) in harmless {
            let mut chain = chain.clone();
            chain[key] = value.into();
            assert_eq!(obstacles(&ruleset(&chain, &json!([])), &["br0"]), [""; 0], "{key} {value}");
        }
        let mut both = chain;
        both["family"] = "inet".into();
        assert_eq!(obstacles(&ruleset(&both, &json!([])), &["br0"]).len(), 1);
        assert_eq!(obstacles("nft: no such thing", &["br0"]), [""; 0]);
    }
}
