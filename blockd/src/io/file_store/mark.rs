//! A mark on an image file that says where its sidecar lies.
//!
//! It is an extended attribute, so it is the file's and not the name's: whoever meets the file by another hard link, or
//! under another name, finds the same mark. The file's number is in it, so that a copy of the file, to which some
//! programs copy attributes, is not taken for it.
//!
//! A file system without such attributes keeps none. Then a sidecar is found by the image's name alone.

use std::ffi::{CStr, CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The attribute; its value is the file's inode number, a blank, and the sidecar's absolute path.
const NAME: &CStr = c"user.blockd.sidecar";
/// The longest value that is read, in bytes: a path and a number.
const VALUE_BYTES_MAX: usize = 4096 + 32;

/// Where the mark says that the sidecar of `image` is; none without a mark, or with one that was copied.
pub fn read(image: &Path) -> Option<PathBuf> {
    let path = CString::new(image.as_os_str().as_bytes()).ok()?;
    let mut value = vec![0; VALUE_BYTES_MAX];
    // SAFETY: both strings end with NUL, and the kernel writes at most as many bytes as the value has.
    let len = unsafe { libc::getxattr(path.as_ptr(), NAME.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(len).ok()?);
    let blank = value.iter().position(|byte| *byte == b' ')?;
    let inode: u64 = std::str::from_utf8(&value[..blank]).ok()?.parse().ok()?;
    let is_ours = fs::metadata(image).is_ok_and(|found| found.ino() == inode);
    is_ours.then(|| PathBuf::from(OsString::from_vec(value.split_off(blank + 1))))
}

/// Has the mark of `image` say that its sidecar is `sidecar`. Fails where the file system has no such attributes.
pub fn write(image: &Path, sidecar: &Path) -> io::Result<()> {
    let path = CString::new(image.as_os_str().as_bytes())?;
    let mut value = format!("{} ", fs::metadata(image)?.ino()).into_bytes();
    value.extend(sidecar.as_os_str().as_bytes());
    // SAFETY: both strings end with NUL, and the kernel reads as many bytes as the value has.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), NAME.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Ok(Errno::result(result).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;

    #[test]
    fn a_mark_goes_with_the_file_and_not_with_a_copy_of_it() {
        let scratch = Scratch::new();
        let [image, link, renamed, copy] =
            ["image", "link", "renamed", "copy"].map(|name| scratch.path(name));
        fs::write(&image, "bytes").unwrap();
        assert_eq!(read(&image), None);
        let sidecar = scratch.path("a name with blanks.blockd");
        if write(&image, &sidecar).is_err() {
            return; // this file system keeps none
        }
        fs::hard_link(&image, &link).unwrap();
        fs::rename(&image, &renamed).unwrap();
        assert_eq!((read(&link), read(&renamed)), (Some(sidecar.clone()), Some(sidecar.clone())));
        assert_eq!(read(&image), None);
        // As `cp -a` does: the attribute as it is.
        fs::write(&copy, "bytes").unwrap();
        write(&copy, &sidecar).unwrap();
        fs::rename(&copy, &image).unwrap();
        let (number, of_copy) = (fs::metadata(&renamed).unwrap().ino(), fs::metadata(&image).unwrap().ino());
        assert_ne!(number, of_copy);
        set_raw(&image, format!("{number} {}", sidecar.display()).as_bytes());
        assert_eq!(read(&image), None);
        for nonsense in [&b""[..], b"no-number", b"7", b" /x", &[0xff, b' ', b'x']] {
            set_raw(&image, nonsense);
            assert_eq!(read(&image), None);
        }
    }

    fn set_raw(image: &Path, value: &[u8]) {
        let path = CString::new(image.as_os_str().as_bytes()).unwrap();
        // SAFETY: as in `write`.
        let result =
            unsafe { libc::setxattr(path.as_ptr(), NAME.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        assert_eq!(result, 0);
    }
}
