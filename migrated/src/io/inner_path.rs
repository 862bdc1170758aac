//! How a path of a description becomes a path of the host: below a folder, and never out of it.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a path is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {reason}", path.display())]
pub struct PathError {
    /// The path.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The path of the host that `inner` means below `folder`. Links are followed, but not out of the folder; the last
/// part need not exist.
pub fn inner_path(folder: &Path, inner: &Path) -> Result<PathBuf, PathError> {
    let path = folder.join(inner);
    let refuse = |reason: String| PathError { path: path.clone(), reason };
    if !crate::guest::is_inner_path(inner) {
        return Err(refuse("this is no path below a folder".into()));
    }
    let root = fs::canonicalize(folder)
        .map_err(|error| refuse(format!("the folder {} is not there: {error}", folder.display())))?;
    let found = match fs::canonicalize(&path) {
        Ok(found) => found,
        // Not there, or a link to what is not there.
        Err(_) if fs::symlink_metadata(&path).is_ok() => {
            return Err(refuse("this is a link to nothing".into()));
        }
        Err(_) => {
            let (parent, name) = (path.parent().unwrap_or(folder), path.file_name().unwrap_or_default());
            let parent = fs::canonicalize(parent)
                .map_err(|error| refuse(format!("its folder is not there: {error}; make it")))?;
            parent.join(name)
        }
    };
    if !found.starts_with(&root) {
        return Err(refuse(format!("it leads out of {}, which is not allowed", root.display())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::inner_path;

    #[test]
    fn a_path_stays_in_its_folder_through_links_too() {
        let root = std::env::temp_dir().join(format!("inner-path-{}", std::process::id()));
        let images = root.join("images");
        fs::create_dir_all(images.join("sub")).unwrap();
        fs::write(images.join("a.raw"), "").unwrap();
        fs::write(root.join("outside"), "").unwrap();
        symlink(images.join("a.raw"), images.join("good")).unwrap();
        symlink("../outside", images.join("bad")).unwrap();
        symlink("..", images.join("up")).unwrap();
        symlink("nowhere", images.join("dangling")).unwrap();
        let path = |inner: &str| inner_path(&images, Path::new(inner)).map_err(|error| error.to_string());
        let real = fs::canonicalize(&images).unwrap();
        assert_eq!(path("a.raw").unwrap(), real.join("a.raw"));
        assert_eq!(path("good").unwrap(), real.join("a.raw"));
        assert_eq!(path("sub/new.raw").unwrap(), real.join("sub/new.raw"));
        let cases = [
            ("bad", "leads out of"),
            ("up/new", "leads out of"),
            ("dangling", "link to nothing"),
            ("no/new", "make it"),
            ("../outside", "no path below"),
        ];
        for (inner, reason) in cases {
            assert!(path(inner).is_err_and(|error| error.contains(reason)), "{inner}: {:?}", path(inner));
        }
        fs::remove_dir_all(&root).unwrap();
    }

    /// Whoever can change links inside the folder is looked at again: a path is decided when it is used.
    #[test]
    fn hostile_paths_and_links_that_change_lead_nowhere_else() {
        let root = std::env::temp_dir().join(format!("inner-path-hostile-{}", std::process::id()));
        let images = root.join("images");
        fs::create_dir_all(images.join("sub")).unwrap();
        let path = |inner: &str| inner_path(&images, Path::new(inner)).map_err(|error| error.to_string());
        let hostile = ["", "/etc/passwd", "..", "sub/../../x", "a\0b", "a\nb", "a,b", "./../x", "sub/.."];
        for inner in hostile {
            assert!(
                path(inner).is_err_and(|error| error.contains("no path below")),
                "{inner:?}: {:?}",
                path(inner)
            );
        }
        assert!(path(&"x/".repeat(200)).is_err());
        assert!(path("sub/new.raw").is_ok());
        fs::remove_dir(images.join("sub")).unwrap();
        symlink("/etc", images.join("sub")).unwrap();
        for inner in ["sub/new.raw", "sub/passwd", "sub"] {
            assert!(
                path(inner).is_err_and(|error| error.contains("leads out of")),
                "{inner}: {:?}",
                path(inner)
            );
        }
        // A folder whose name begins like ours is another one.
        fs::create_dir(root.join("images-of-others")).unwrap();
        symlink("../images-of-others", images.join("near")).unwrap();
        assert!(path("near/x").is_err_and(|error| error.contains("leads out of")), "{:?}", path("near/x"));
        // A loop is no way out either.
        symlink("loop", images.join("loop")).unwrap();
        assert!(path("loop").is_err() && path("loop/x").is_err());
        fs::remove_dir_all(&root).unwrap();
    }
}
