//! Which crate of ours may import which: the drawing in `ARCHITECTURE.md`, as a table.
//!
//! Reads manifests only: what is not a dependency cannot be imported.

use super::Finding;

/// Each crate, from the bottom up, and what it may import of ours.
pub const MAY_IMPORT: [(&str, &[&str]); 6] = [
    ("throttle", &[]),
    ("tunnel", &[]),
    ("blockd", &["throttle"]),
    ("migrated", &["blockd", "tunnel", "throttle"]),
    ("simulation", &["blockd", "migrated"]),
    ("tests", &["throttle", "tunnel", "blockd", "migrated", "simulation"]),
];

/// Imports of our crates against the direction, in the manifest of one of them.
pub fn direction(name: &str, manifest: &str) -> Vec<Finding> {
    let allowed = MAY_IMPORT.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
    let finding = |line, what| Finding { path: format!("{name}/Cargo.toml"), line, what };
    let Some(allowed) = allowed else {
        return vec![finding(1, "a crate without a place; give it one in MAY_IMPORT".to_owned())];
    };
    dependencies(manifest)
        .filter(|(_, dependency)| MAY_IMPORT.iter().any(|(known, _)| known == dependency))
        .filter(|(_, dependency)| !allowed.contains(dependency))
        .map(|(line, dependency)| {
            let may = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
            finding(line, format!("{name} imports {dependency}, but may import only: {may}"))
        })
        .collect()
}

/// Crates of others in the manifest of one of ours for which `page` has no row, and so no reason.
pub fn without_a_reason(name: &str, manifest: &str, page: &str) -> Vec<Finding> {
    dependencies(manifest)
        .filter(|(_, dependency)| MAY_IMPORT.iter().all(|(known, _)| known != dependency))
        .filter(|(_, dependency)| !page.lines().any(|line| line.starts_with(&format!("| {dependency} |"))))
        .map(|(line, dependency)| {
            let what = format!("{dependency} has no row in docs/dependencies.md: say what it is better than");
            Finding { path: format!("{name}/Cargo.toml"), line, what }
        })
        .collect()
}

/// The crates of the workspace, as its manifest lists them.
pub fn members(workspace_manifest: &str) -> Vec<String> {
    let list = workspace_manifest.split_once("members = [").map_or("", |(_, rest)| rest);
    let list = list.split(']').next().unwrap_or_default();
    list.split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// Line and name of each entry in any table of dependencies.
fn dependencies(manifest: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_table = false;
    manifest.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            in_table = table.ends_with("dependencies");
            // [dependencies.name] is an entry by itself.
            let (kind, name) = table.rsplit_once('.')?;
            return kind.ends_with("dependencies").then_some((index + 1, name));
        }
        let end = line.find(|c: char| !c.is_alphanumeric() && c != '-' && c != '_')?;
        (in_table && end > 0).then_some((index + 1, &line[..end]))
    })
}

#[cfg(test)]
mod tests {
    use super::{direction, members, without_a_reason};

    #[test]
    fn an_import_against_the_direction_is_found_in_every_kind_of_table() {
        for bad in [
            "[dependencies]\nanyhow.workspace = true\nmigrated = { path = \"..\" }\n",
            "[package]\n[dev-dependencies]\nmigrated.workspace = true\n",
            "[package]\n[target.'cfg(unix)'.dependencies]\nmigrated = \"1\"\n",
            "[package]\n\n[dependencies.migrated]\npath = \"x\"\n",
        ] {
            let found = direction("blockd", bad);
            assert_eq!(found.len(), 1, "{bad}");
            assert_eq!(found[0].line, 3);
            assert_eq!(found[0].what, "blockd imports migrated, but may import only: throttle");
        }
        assert_eq!(direction("throttle", "[dependencies]\nblockd.workspace = true\n").len(), 1);
    }

    #[test]
    fn the_right_direction_and_other_tables_are_left_alone() {
        let manifest =
            "[package]\nname = \"blockd\"\n[dependencies]\nthrottle = \"1\"\n[features]\nmigrated = []\n";
        assert_eq!(direction("blockd", manifest), []);
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let manifest = "[dependencies]\nthrottle = \"1\"\nserde.workspace = true\nnew = \"1\"\n";
        let found =
            without_a_reason("blockd", manifest, "| crate | used for |\n|---|---|\n| serde | values |\n");
        assert_eq!((found.len(), found[0].line), (1, 4));
        assert!(found[0].what.starts_with("new has no row"));
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(direction("extra", "").len(), 1);
        assert_eq!(members("[workspace]\nmembers = [\"throttle\", \"extra\"]\n"), ["throttle", "extra"]);
    }
}
