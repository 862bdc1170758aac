//! Imports inside a crate form a line, never a circle.
//!
//! ```text
//! level of the crate      level of nbd/
//!   nbd ──► extent          session ──► reply ──► wire
//!    ▲        │                ▲                   │
//!    └────────┘ a circle       └───────────────────┘ a circle
//! ```
//!
//! At each level, the modules of one folder are the nodes; whatever is below a module counts as
//! that module. A name that a parent re-exports is followed to where it comes from. A parent and
//! its own children may know each other. Unit tests may look anywhere.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::{self, Named};
use super::{Finding, Source};

type Module = Vec<String>;

/// The modules of one crate, and what each re-exports or imports by name.
struct Tree<'a> {
    sources: BTreeMap<Module, &'a Source>,
    modules: BTreeSet<Module>,
    names: BTreeMap<(Module, String), Vec<String>>,
}

/// Circles among the modules of one crate (the sources below its `src/`).
pub fn circles(sources: &[&Source]) -> Vec<Finding> {
    let tree = Tree::new(sources);
    let mut levels: BTreeMap<Module, Edges> = BTreeMap::new();
    for (from, source) in &tree.sources {
        for named in paths::all(&source.product_code()) {
            let Some(to) = tree.resolve(from, &named.segments) else { continue };
            let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if let (Some(user), Some(used)) = (from.get(shared), to.get(shared)) {
                let line = source.line_at(named.offset);
                levels
                    .entry(from[..shared].to_vec())
                    .or_default()
                    .entry(user.clone())
                    .or_default()
                    .entry(used.clone())
                    .or_insert_with(|| Finding::new(source, line, ""));
            }
        }
    }
    levels.values().filter_map(circle).collect()
}

/// Who uses whom at one level, and one place where.
type Edges = BTreeMap<String, BTreeMap<String, Finding>>;

/// One circle of a level, told with the places that close it.
fn circle(edges: &Edges) -> Option<Finding> {
    let way = edges.keys().find_map(|start| way_back(edges, start))?;
    let places: Vec<&Finding> = way.windows(2).map(|pair| &edges[&pair[0]][&pair[1]]).collect();
    let told: Vec<String> = places.iter().map(|place| format!("{}:{}", place.path, place.line)).collect();
    let what = format!(
        "imports go in a circle: {} (at {}); move what both need into a module below them",
        way.join(" -> "),
        told.join(", ")
    );
    Some(Finding { what, ..places[0].clone() })
}

/// The shortest way from a module back to itself.
fn way_back(edges: &Edges, start: &String) -> Option<Vec<String>> {
    let mut ways = std::collections::VecDeque::from([vec![start.clone()]]);
    let mut visited = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in edges.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            let longer = [way.as_slice(), std::slice::from_ref(next)].concat();
            if next == start {
                return Some(longer);
            }
            if visited.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

impl<'a> Tree<'a> {
    fn new(sources: &[&'a Source]) -> Self {
        let sources: BTreeMap<Module, &Source> =
            sources.iter().filter_map(|source| Some((module_of(&source.path)?, *source))).collect();
        let with_parents =
            |module: &Module| (1..=module.len()).map(|n| module[..n].to_vec()).collect::<Vec<_>>();
        let modules: BTreeSet<Module> = sources.keys().flat_map(with_parents).collect();
        let mut names = BTreeMap::new();
        for (module, source) in &sources {
            for Named { segments, name, .. } in paths::in_use_items(&source.product_code()) {
                names.insert((module.clone(), name), segments);
            }
        }
        Self { sources, modules, names }
    }

    /// The module that a path, written in `from`, leads to; none for other crates.
    fn resolve(&self, from: &Module, segments: &[String]) -> Option<Module> {
        self.follow(from, segments, 8)
    }

    /// `hops`: how many re-exports are followed at most, for they may name each other.
    fn follow(&self, from: &Module, segments: &[String], hops: usize) -> Option<Module> {
        let (first, mut rest) = segments.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Module::new(),
            "self" => from.clone(),
            "super" => parent(from)?,
            child if self.modules.contains(&below(from, child)) => below(from, child),
            _ => return None,
        };
        while let Some((segment, further)) = rest.split_first() {
            let child = below(&at, segment);
            if segment == "super" {
                at = parent(&at)?;
            } else if self.modules.contains(&child) {
                at = child;
            } else if let Some(source) = self.names.get(&(at.clone(), segment.clone()))
                && hops > 0
            {
                let path = [source.as_slice(), further].concat();
                return self.follow(&at, &path, hops - 1);
            } else {
                return Some(at);
            }
            rest = further;
        }
        Some(at)
    }
}

fn below(module: &Module, child: &str) -> Module {
    [module.as_slice(), &[child.to_owned()]].concat()
}

fn parent(module: &Module) -> Option<Module> {
    module.split_last().map(|(_, above)| above.to_vec())
}

/// `blockd/src/nbd/wire.rs` is `nbd::wire`, `blockd/src/lib.rs` the root. Programs stand apart.
fn module_of(path: &str) -> Option<Module> {
    let (_, inside) = path.split_once("/src/")?;
    let stem = inside.strip_suffix(".rs")?;
    if stem == "main" || stem.starts_with("bin/") || stem.ends_with("/tests") {
        return None;
    }
    let stem = stem.strip_suffix("/mod").unwrap_or(stem);
    Some(if stem == "lib" { Module::new() } else { stem.split('/').map(str::to_owned).collect() })
}

/// Pure code does not reach into `io`: what it needs of the world is handed to it.
pub fn reach_into_io(source: &Source) -> Vec<Finding> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    if module.first().is_none_or(|top| top == "io") || source.path.starts_with("tests/") {
        return Vec::new();
    }
    paths::all(&source.product_code())
        .iter()
        .filter(|named| named.segments.starts_with(&["crate".to_owned(), "io".to_owned()]))
        .map(|named| {
            let what = "pure code uses crate::io; take a value or a trait as an argument instead";
            Finding::new(source, source.line_at(named.offset), what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{circles, reach_into_io};
    use crate::house::Source;

    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles(&sources.iter().collect::<Vec<_>>()).iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_circle_of_two_modules_is_found_with_its_places() {
        let found = told(&[
            ("x/src/a.rs", "use crate::b::B;"),
            ("x/src/b.rs", "\nfn f() { crate::a::g() }"),
            ("x/src/c.rs", "use crate::{a, b};"),
        ]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("x/src/a.rs:1: imports go in a circle: a -> b -> a"), "{found:?}");
        assert!(found[0].contains("x/src/a.rs:1, x/src/b.rs:2"), "{found:?}");
    }

    #[test]
    fn a_circle_through_folders_groups_and_super_is_found() {
        let found = told(&[
            ("x/src/nbd/wire.rs", "use crate::{store::{Store}};"),
            ("x/src/store.rs", "use super::volume;"),
            ("x/src/volume.rs", "mod m { }\nuse crate::nbd::session;"),
        ]);
        assert!(found[0].contains("nbd -> store -> volume -> nbd"), "{found:?}");
    }

    #[test]
    fn a_circle_inside_a_folder_is_found() {
        let found = told(&[
            ("x/src/nbd.rs", "pub mod wire; pub mod reply;"),
            ("x/src/nbd/wire.rs", "use super::reply::Reply;"),
            ("x/src/nbd/reply.rs", "use crate::nbd::wire;"),
        ]);
        assert!(found[0].contains("reply -> wire -> reply"), "{found:?}");
    }

    #[test]
    fn a_circle_behind_a_re_export_is_found() {
        let found = told(&[
            ("x/src/lib.rs", "mod a; mod b; pub use a::A; pub use self::b::B;"),
            ("x/src/a.rs", "use crate::B;"),
            ("x/src/b.rs", "use crate::A;"),
        ]);
        assert!(found[0].contains("a -> b -> a"), "{found:?}");
    }

    #[test]
    fn a_line_is_no_circle() {
        let found = told(&[
            ("x/src/lib.rs", "mod a; mod b; pub use b::B;"),
            ("x/src/a.rs", "mod inner; use crate::B; pub use inner::I;"),
            ("x/src/a/inner.rs", "use super::T; use crate::b::B; use std::io;"),
            ("x/src/b.rs", "fn b() {}\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
            ("x/src/main.rs", "use x::a;"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn pure_code_that_uses_io_is_found() {
        let found = |path| reach_into_io(&Source::new(path, "use crate::{io::clock, extent};")).len();
        assert_eq!(found("blockd/src/volume.rs"), 1);
        assert_eq!(found("blockd/src/io/ring.rs"), 0);
        assert_eq!(found("blockd/src/main.rs"), 0);
    }
}
