//! Who may start as what (D11, D13): one function, one table.
//!
//! | asked     | no sidecar            | primary | replica       | promoted | fenced                |
//! |-----------|-----------------------|---------|---------------|----------|-----------------------|
//! | a disk    | a new disk            | disk    | not promoted  | disk     | it moved              |
//! | a replica | absent or empty only  | in use  | goes on       | disk     | replica: coming back  |
//! | …claimed  | whatever is there     | in use  | goes on       | disk     | replica: coming back  |
//!
//! A sidecar of another disk or of another size is refused before the table is asked. An image
//! without a sidecar is a stranger's and never overwritten.

use thiserror::Error;

use super::{Header, Role};

/// What is at the image's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// Nothing.
    Absent,
    /// A file of no bytes.
    Empty,
    /// A file or device of this many bytes.
    Present(u64),
}

/// What the command line asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Serve it to its guest.
    AsDisk,
    /// Receive a copy; of this many bytes, where that was said.
    AsReplica(Option<u64>),
    /// The same, over whatever an image without a sidecar holds: an operator said so (a new
    /// logical volume cannot be absent).
    AsClaimedReplica(Option<u64>),
}

/// How to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As the guest's disk. Without a sidecar a new one says `Primary`.
    Disk {
        /// It was asked to be a replica, and has been promoted since.
        promoted: bool,
    },
    /// As a replica of `size` bytes; the sidecar must say so durably before anything is written.
    Replica {
        /// Size of the disk in bytes.
        size: u64,
        /// The image has to be made, after the sidecar.
        create: bool,
        /// It was the guest's disk once, and the guest is on its way back.
        coming_back: bool,
    },
}

/// Why it is not started.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no disk to serve.
    #[error("there is no image to serve; create it first (truncate -s 10G IMAGE makes an empty one)")]
    NoImage,
    /// A disk of no bytes.
    #[error("the image is empty; give it a size first (truncate -s 10G IMAGE)")]
    EmptyImage,
    /// How large?
    #[error("the replica is new and its size is not known; add --size")]
    SizeNeeded,
    /// Somebody's data.
    #[error(
        "there is an image already and no sidecar marks it as this replica; it is not overwritten: \
         name another path, remove it yourself, or say --claim if all that it holds may be lost"
    )]
    Stranger,
    /// Not as large as was said.
    #[error(
        "the image that is claimed has {found} bytes, and --size says {said}; check that it is the right one"
    )]
    ClaimedSize {
        /// Of the image.
        found: u64,
        /// On the command line.
        said: u64,
    },
    /// Somebody's disk in use.
    #[error("the image is a guest's own disk (its sidecar says primary); it is not overwritten by a replica")]
    OwnDisk,
    /// Of another disk.
    #[error(
        "the sidecar belongs to disk {found:?}, asked was {asked:?}; check --image, --sidecar and --disk-id"
    )]
    OtherDisk {
        /// In the sidecar.
        found: String,
        /// On the command line.
        asked: String,
    },
    /// Of another size.
    #[error(
        "the sidecar is for a disk of {sidecar} bytes, but here are {found}; if the image was resized on purpose \
         and has no replica, remove the sidecar"
    )]
    OtherSize {
        /// In the sidecar.
        sidecar: u64,
        /// Of the image, or on the command line.
        found: u64,
    },
    /// Half a copy, perhaps.
    #[error("the image is a replica that was never promoted; it may be incomplete. Start it with --replica")]
    NotPromoted,
    /// The guest writes elsewhere.
    #[error("this disk moved to {} with generation {generation}; serving it here would split it in two",
        if .moved_to.is_empty() { "another host" } else { .moved_to })]
    Moved {
        /// Where it is now; empty: not said.
        moved_to: String,
        /// Under which generation.
        generation: u64,
    },
}

/// Decides how `disk_id` starts, from its sidecar, its image and the command line.
pub fn startup(
    header: Option<&Header>,
    image: ImageState,
    asked: Asked,
    disk_id: &str,
) -> Result<Start, Refusal> {
    let Some(header) = header else { return without_sidecar(image, asked) };
    if header.disk_id != disk_id {
        return Err(Refusal::OtherDisk { found: header.disk_id.clone(), asked: disk_id.into() });
    }
    check_size(header, image, asked)?;
    match (asked, header.role) {
        (Asked::AsDisk, Role::Primary | Role::Promoted) => serve_disk(image, false),
        (Asked::AsDisk, Role::Replica) => Err(Refusal::NotPromoted),
        (Asked::AsDisk, Role::Fenced) => {
            Err(Refusal::Moved { moved_to: header.moved_to.clone(), generation: header.generation })
        }
        (_, Role::Primary) => Err(Refusal::OwnDisk),
        (_, Role::Promoted) => serve_disk(image, true),
        (_, role @ (Role::Replica | Role::Fenced)) => Ok(Start::Replica {
            size: header.size,
            create: !matches!(image, ImageState::Present(_)),
            coming_back: role == Role::Fenced,
        }),
    }
}

fn without_sidecar(image: ImageState, asked: Asked) -> Result<Start, Refusal> {
    match (asked, image) {
        (Asked::AsDisk, image) => serve_disk(image, false),
        (Asked::AsReplica(_), ImageState::Present(_)) => Err(Refusal::Stranger),
        (Asked::AsClaimedReplica(said), ImageState::Present(size)) => match said.filter(|said| *said != size)
        {
            Some(said) => Err(Refusal::ClaimedSize { found: size, said }),
            None => Ok(Start::Replica { size, create: false, coming_back: false }),
        },
        (Asked::AsReplica(None) | Asked::AsClaimedReplica(None), _) => Err(Refusal::SizeNeeded),
        (Asked::AsReplica(Some(size)) | Asked::AsClaimedReplica(Some(size)), _) => {
            Ok(Start::Replica { size, create: true, coming_back: false })
        }
    }
}

fn serve_disk(image: ImageState, promoted: bool) -> Result<Start, Refusal> {
    match image {
        ImageState::Absent => Err(Refusal::NoImage),
        ImageState::Empty => Err(Refusal::EmptyImage),
        ImageState::Present(_) => Ok(Start::Disk { promoted }),
    }
}

fn check_size(header: &Header, image: ImageState, asked: Asked) -> Result<(), Refusal> {
    let of_image = if let ImageState::Present(size) = image { Some(size) } else { None };
    let of_flags = match asked {
        Asked::AsReplica(size) | Asked::AsClaimedReplica(size) => size,
        Asked::AsDisk => None,
    };
    match [of_image, of_flags].into_iter().flatten().find(|size| *size != header.size) {
        Some(found) => Err(Refusal::OtherSize { sidecar: header.size, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;
    const IMAGES: [ImageState; 3] = [ImageState::Absent, ImageState::Empty, ImageState::Present(SIZE)];

    fn header(role: Role) -> Header {
        let mut header = Header::new("disk", SIZE, role, [0; 16]).unwrap();
        header.generation = 4;
        header.moved_to = "site-b".into();
        header
    }

    /// What should happen, in a word, for absent, empty and present images.
    fn row(role: Option<Role>, asked: Asked) -> [String; 3] {
        let header = role.map(header);
        IMAGES.map(|image| match startup(header.as_ref(), image, asked, "disk") {
            Ok(Start::Disk { promoted: false }) => "disk".into(),
            Ok(Start::Disk { promoted: true }) => "promoted".into(),
            Ok(Start::Replica { size, create, coming_back }) => {
                assert_eq!(size, SIZE);
                let how = if create { "create" } else { "go-on" };
                format!("{how}{}", if coming_back { "+back" } else { "" })
            }
            Err(refusal) => {
                let name = format!("{refusal:?}");
                name.split([' ', '{']).next().unwrap().to_string()
            }
        })
    }

    #[test]
    fn every_combination_of_sidecar_image_and_flags_is_decided() {
        let disk = Asked::AsDisk;
        let sized = Asked::AsReplica(Some(SIZE));
        let table = [
            (None, disk, ["NoImage", "EmptyImage", "disk"]),
            (Some(Role::Primary), disk, ["NoImage", "EmptyImage", "disk"]),
            (Some(Role::Promoted), disk, ["NoImage", "EmptyImage", "disk"]),
            (Some(Role::Replica), disk, ["NotPromoted"; 3]),
            (Some(Role::Fenced), disk, ["Moved"; 3]),
            (None, sized, ["create", "create", "Stranger"]),
            (None, Asked::AsReplica(None), ["SizeNeeded", "SizeNeeded", "Stranger"]),
            (None, Asked::AsClaimedReplica(Some(SIZE)), ["create", "create", "go-on"]),
            (None, Asked::AsClaimedReplica(None), ["SizeNeeded", "SizeNeeded", "go-on"]),
        ];
        for (role, asked, expected) in table {
            assert_eq!(row(role, asked), expected, "{role:?} {asked:?}");
        }
        for asked in [sized, Asked::AsReplica(None), Asked::AsClaimedReplica(None)] {
            let table = [
                (Role::Primary, ["OwnDisk"; 3]),
                (Role::Replica, ["create", "create", "go-on"]),
                (Role::Promoted, ["NoImage", "EmptyImage", "promoted"]),
                (Role::Fenced, ["create+back", "create+back", "go-on+back"]),
            ];
            for (role, expected) in table {
                assert_eq!(row(Some(role), asked), expected, "{role:?} {asked:?}");
            }
        }
    }

    #[test]
    fn a_sidecar_of_another_disk_or_size_is_refused_in_every_role() {
        for role in Role::ALL {
            for asked in [Asked::AsDisk, Asked::AsReplica(None)] {
                let other = startup(Some(&header(role)), ImageState::Present(SIZE), asked, "other");
                assert!(matches!(other, Err(Refusal::OtherDisk { .. })));
                let resized = startup(Some(&header(role)), ImageState::Present(SIZE + 1), asked, "disk");
                assert_eq!(resized, Err(Refusal::OtherSize { sidecar: SIZE, found: SIZE + 1 }));
            }
            let flags = Asked::AsReplica(Some(SIZE - 1));
            let resized = startup(Some(&header(role)), ImageState::Absent, flags, "disk");
            assert_eq!(resized, Err(Refusal::OtherSize { sidecar: SIZE, found: SIZE - 1 }));
        }
    }

    #[test]
    fn a_claim_of_an_image_of_another_size_is_refused() {
        let refused = startup(None, ImageState::Present(7), Asked::AsClaimedReplica(Some(SIZE)), "disk");
        assert_eq!(refused, Err(Refusal::ClaimedSize { found: 7, said: SIZE }));
    }

    #[test]
    fn the_refusal_of_a_moved_disk_names_the_place_and_the_generation() {
        let present = ImageState::Present(SIZE);
        let refusal = startup(Some(&header(Role::Fenced)), present, Asked::AsDisk, "disk").unwrap_err();
        let text = refusal.to_string();
        assert!(text.contains("site-b") && text.contains("generation 4"), "{text}");
        let nowhere = Header { moved_to: String::new(), ..header(Role::Fenced) };
        let text = startup(Some(&nowhere), present, Asked::AsDisk, "disk").unwrap_err().to_string();
        assert!(text.contains("another host"), "{text}");
    }
}
