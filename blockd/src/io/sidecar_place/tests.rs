//! Images by all the names that they can have.

use std::os::unix::fs::symlink;

use super::*;
use crate::io::scratch::Scratch;
use crate::sidecar::Role;

/// A folder with an image, `real/disk.raw`.
struct Folder(Scratch);

impl Folder {
    fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path("real")).unwrap();
        fs::create_dir(scratch.path("other")).unwrap();
        fs::write(scratch.path("real/disk.raw"), "bytes").unwrap();
        Self(scratch)
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.0.path("")).unwrap().join(name)
    }

    fn put(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, "").unwrap();
        path
    }

    fn find(&self, name: &str) -> Result<Place, PlaceError> {
        find(&self.path(name), &self.path("devices"))
    }
}

fn at_home(home: PathBuf) -> Place {
    Place { home, stray: None }
}

#[test]
fn a_file_has_its_sidecar_beside_itself_by_whatever_path_it_is_reached() {
    let folder = Folder::new();
    symlink(folder.path("real"), folder.path("folder-link")).unwrap();
    symlink("../real/disk.raw", folder.path("other/link.raw")).unwrap();
    symlink("other/link.raw", folder.path("twice.raw")).unwrap();
    let home = folder.path("real/disk.raw.blockd");
    for name in
        ["real/disk.raw", "folder-link/disk.raw", "other/link.raw", "twice.raw", "real/../real/disk.raw"]
    {
        assert_eq!(folder.find(name).unwrap(), at_home(home.clone()), "{name}");
    }
    folder.put("real/disk.raw.blockd");
    assert_eq!(folder.find("twice.raw").unwrap(), at_home(home));
}

#[test]
fn an_image_that_is_still_to_be_made_has_its_place_too() {
    let folder = Folder::new();
    symlink("../real/new.raw", folder.path("other/link.raw")).unwrap();
    symlink("loop.raw", folder.path("loop.raw")).unwrap();
    let home = folder.path("real/new.raw.blockd");
    assert_eq!(folder.find("real/new.raw").unwrap(), at_home(home.clone()));
    assert_eq!(folder.find("other/link.raw").unwrap(), at_home(home));
    assert!(matches!(folder.find("nowhere/new.raw"), Err(PlaceError::Io { .. })));
    assert!(matches!(folder.find("loop.raw"), Err(PlaceError::Io { .. })));
}

#[test]
fn one_that_an_older_program_put_beside_a_link_is_found_and_two_are_refused() {
    let folder = Folder::new();
    symlink("../real/disk.raw", folder.path("other/link.raw")).unwrap();
    let old = folder.put("other/link.raw.blockd");
    let found = folder.find("other/link.raw").unwrap();
    assert_eq!((found.path(), &found.stray), (&*old, &Some(Stray::Left(old.clone()))));
    let home = folder.put("real/disk.raw.blockd");
    match folder.find("other/link.raw") {
        Err(PlaceError::Two { home: found, other, .. }) => assert_eq!((found, other), (home, old)),
        other => panic!("{other:?}"),
    }
}

/// A marked image, unless this file system keeps no marks.
fn marked() -> Option<Folder> {
    let folder = Folder::new();
    let sidecar = folder.put("real/disk.raw.blockd");
    mark_image(&folder.path("real/disk.raw"), &sidecar).then_some(folder)
}

#[test]
fn two_hard_links_lead_to_one_sidecar() {
    let Some(folder) = marked() else { return };
    fs::hard_link(folder.path("real/disk.raw"), folder.path("other/hard.raw")).unwrap();
    let found = folder.find("other/hard.raw").unwrap();
    assert_eq!(found.stray, Some(Stray::Shared(folder.path("real/disk.raw.blockd"))));
    assert_eq!(folder.find("real/disk.raw").unwrap(), at_home(folder.path("real/disk.raw.blockd")));
    folder.put("other/hard.raw.blockd");
    assert!(matches!(folder.find("other/hard.raw"), Err(PlaceError::Two { .. })));
}

#[test]
fn a_renamed_image_finds_what_it_has_left_behind_and_what_was_moved_with_it() {
    let Some(folder) = marked() else { return };
    let (old, new) = (folder.path("real/disk.raw.blockd"), folder.path("other/new.raw.blockd"));
    fs::rename(folder.path("real/disk.raw"), folder.path("other/new.raw")).unwrap();
    let found = folder.find("other/new.raw").unwrap();
    assert_eq!(found, Place { home: new.clone(), stray: Some(Stray::Left(old.clone())) });
    fs::rename(&old, &new).unwrap();
    assert_eq!(folder.find("other/new.raw").unwrap(), at_home(new.clone()));
    fs::remove_file(&new).unwrap();
    assert_eq!(folder.find("other/new.raw").unwrap(), at_home(new), "somebody has removed it");
}

#[test]
fn what_is_beside_another_image_now_is_not_taken_for_ones_own() {
    let Some(folder) = marked() else { return };
    fs::rename(folder.path("real/disk.raw"), folder.path("other/new.raw")).unwrap();
    fs::write(folder.path("real/disk.raw"), "another").unwrap();
    assert!(matches!(folder.find("other/new.raw"), Err(PlaceError::Taken { .. })));
    assert_eq!(folder.find("real/disk.raw").unwrap(), at_home(folder.path("real/disk.raw.blockd")));
    let home = folder.put("other/new.raw.blockd");
    assert_eq!(folder.find("other/new.raw").unwrap(), at_home(home));
}

#[test]
fn a_copy_of_an_image_is_another_disk() {
    let Some(folder) = marked() else { return };
    fs::copy(folder.path("real/disk.raw"), folder.path("other/copy.raw")).unwrap();
    assert_eq!(folder.find("other/copy.raw").unwrap(), at_home(folder.path("other/copy.raw.blockd")));
}

#[test]
fn a_sidecar_that_was_named_by_hand_is_remembered() {
    let Some(folder) = marked() else { return };
    fs::remove_file(folder.path("real/disk.raw.blockd")).unwrap();
    let named = folder.put("other/fast");
    assert!(mark_image(&folder.path("real/disk.raw"), &named));
    assert_eq!(folder.find("real/disk.raw").unwrap().stray, Some(Stray::Shared(named)));
}

#[test]
fn a_name_of_a_device_is_readable_and_its_own() {
    let name = name_of_device("dm-LVM-a/b");
    assert!(name.starts_with("device-dm-LVM-a_b-") && name.ends_with(".blockd"), "{name}");
    assert_ne!(name, name_of_device("dm-LVM-a_b"));
    assert!(name_of_device(&"x".repeat(1000)).len() < 200);
}

#[test]
fn an_old_name_of_a_device_is_taken_over_left_alone_or_refused() {
    let folder = Folder::new();
    let [home, old] = ["device-x.blockd", "root.blockd"].map(|name| folder.path(name));
    let place = || Place { home: home.clone(), stray: Some(Stray::Named(old.clone())) };
    let settled = |id: Option<&str>| settle(Path::new("/dev/vg1/root"), place(), id, Some(1 << 20));
    let header = |role| Header::new("root", 1 << 20, role, [0; 16]).unwrap();
    drop(SidecarFile::create(&old, header(Role::Primary)).unwrap());
    let (found, said) = settled(None).unwrap();
    assert_eq!((found.stray, said), (Some(Stray::Left(old.clone())), Some(header(Role::Primary))));
    assert_eq!(settled(Some("other")).unwrap(), (at_home(home.clone()), None));
    let mut sidecar = SidecarFile::open(&old).unwrap().unwrap();
    sidecar.update(|header| header.role = Role::Fenced).unwrap();
    let refused = anyhow::Error::from(settled(None).unwrap_err());
    for word in ["/dev/vg1/root", "root.blockd", "device-x.blockd", "\"root\" has moved"] {
        assert!(format!("{refused:#}").contains(word), "{refused:#}");
    }
    drop(SidecarFile::create(&home, Header { disk_id: "other".into(), ..header(Role::Primary) }).unwrap());
    assert_eq!(settled(Some("other")).unwrap().0, at_home(home));
}

#[test]
fn a_removed_image_takes_its_own_sidecar_along_and_no_other() {
    let Some(folder) = marked() else { return };
    fs::hard_link(folder.path("real/disk.raw"), folder.path("other/hard.raw")).unwrap();
    let sidecar = folder.path("real/disk.raw.blockd");
    remove_image(&folder.path("other/hard.raw")).unwrap();
    assert!(sidecar.exists() && !folder.path("other/hard.raw").exists());
    remove_image(&folder.path("real/disk.raw")).unwrap();
    assert!(!sidecar.exists() && !folder.path("real/disk.raw").exists());
    remove_image(&folder.path("real/disk.raw")).unwrap();
}

#[test]
fn what_a_sidecar_says_is_not_forgotten_by_naming_another_place() {
    let folder = Folder::new();
    let (image, home) = (folder.path("real/disk.raw"), folder.path("real/disk.raw.blockd"));
    let named = folder.path("other/fast");
    let at = |named: &Path| look(&image, Some(named), None, None);
    assert_eq!(at(&named).unwrap(), (at_home(named.clone()), None), "the first one");
    let fenced = Header::new("disk", 1 << 20, Role::Fenced, [0; 16]).unwrap();
    drop(SidecarFile::create(&home, fenced.clone()).unwrap());
    assert!(matches!(at(&named), Err(PlaceError::Elsewhere { .. })));
    assert_eq!(at(&home).unwrap().1, Some(fenced.clone()));
    // Moved there, it counts; and so does one of somebody who has two.
    fs::rename(&home, &named).unwrap();
    assert_eq!(at(&named).unwrap().1, Some(fenced.clone()));
    drop(SidecarFile::create(&home, Header { role: Role::Primary, ..fenced.clone() }).unwrap());
    assert_eq!(at(&named).unwrap().1, Some(fenced));
}
