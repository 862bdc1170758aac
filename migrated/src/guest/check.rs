//! The checks of a description, made by whoever reads one: the host that runs it and the host that receives it.
//!
//! Nothing here is about a host: whether a path exists or a bridge is mapped is seen where the description is used.
//! What is here keeps a description from meaning more than it says: no path leaves its folder, no name becomes a
//! second option on QEMU's command line, no socket's path gets too long.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::{Accel, Boot, Disk, Guest, Nic};
use crate::domain_name::{is_host_name, suggestion};

/// Longest name of a guest in bytes; with [`ID_BYTES_MAX`] it keeps socket paths below 107 bytes.
pub const NAME_BYTES_MAX: usize = 40;
/// Longest id of a device in bytes; QEMU's own limit for a block node is 31 with our prefix.
pub const ID_BYTES_MAX: usize = 20;
/// Most disks, and most cards: each kind has fixed PCI slots.
pub const DEVICES_MAX: usize = 12;
/// Longest kernel command line in bytes.
const APPEND_BYTES_MAX: usize = 2000;
/// Longest CPU model with its flags in bytes.
const CPU_BYTES_MAX: usize = 1000;
/// The most memory in MiB: 4 TiB.
const MEMORY_MIB_MAX: u64 = 4 << 20;
/// The most CPUs that the machine types have.
const VCPUS_MAX: u32 = 255;

/// All that is wrong with `guest`.
pub fn faults(guest: &Guest) -> Vec<String> {
    let mut faults = Faults(Vec::new());
    faults.check(is_name(&guest.name, NAME_BYTES_MAX), || {
        let name = &guest.name;
        format!("name: {name:?} is no name: letters, digits, - _ . only, a letter or digit first, at most {NAME_BYTES_MAX}")
    });
    faults.check((1..=MEMORY_MIB_MAX).contains(&guest.memory_mib), || {
        format!("memory_mib: {} is not between 1 and {MEMORY_MIB_MAX}", guest.memory_mib)
    });
    faults.check((1..=VCPUS_MAX).contains(&guest.vcpus), || {
        format!("vcpus: {} is not between 1 and {VCPUS_MAX}", guest.vcpus)
    });
    faults.machine(&guest.machine);
    faults.cpu(&guest.cpu, guest.accel);
    if let Some(boot) = &guest.boot {
        faults.boot(boot);
    }
    faults.check(guest.boot.is_some() || !guest.disks.is_empty(), || {
        "disk: there is neither a disk nor [boot]: give one of them, or the guest has nothing to start from".into()
    });
    faults.devices(&guest.disks, &guest.nics);
    faults.0
}

/// A folder's worth of relative path: no root, no `..`, nothing that prints badly or splits an option.
pub fn is_inner_path(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return false };
    !text.is_empty()
        && text.len() <= 255
        && !text.chars().any(|letter| letter.is_control() || letter == ',')
        && path.components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_name(name: &str, bytes_max: usize) -> bool {
    name.len() <= bytes_max
        && name.starts_with(|letter: char| letter.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

struct Faults(Vec<String>);

impl Faults {
    fn check(&mut self, good: bool, fault: impl FnOnce() -> String) {
        if !good {
            self.0.push(fault());
        }
    }

    fn machine(&mut self, machine: &str) {
        let versioned = machine.rsplit_once('-').is_some_and(|(family, version)| {
            family.starts_with("pc-") && version.split('.').all(|part| part.parse::<u16>().is_ok())
        });
        self.check(versioned && machine.len() <= 64 && is_name(machine, 64), || {
            format!(
                "machine: {machine:?} is no versioned PC machine type; write one like \"pc-i440fx-7.2\" \
                 (an alias may mean something else at the destination; QEMU lists them with -machine help)"
            )
        });
    }

    fn cpu(&mut self, cpu: &str, accel: Accel) {
        let mut words = cpu.split(',');
        let model = words.next().unwrap_or_default();
        self.check(is_name(model, 64), || {
            format!("cpu: {model:?} is no CPU model; QEMU lists them with -cpu help")
        });
        self.check(model != "host", || {
            "cpu: \"host\" is another CPU at every host, so such a guest cannot move; name a model".into()
        });
        self.check(model != "max" || accel == Accel::Tcg, || {
            "cpu: \"max\" is the host's own CPU under KVM, so such a guest cannot move; name a model, \
             or say accel = \"tcg\""
                .into()
        });
        self.check(cpu.len() <= CPU_BYTES_MAX, || {
            format!("cpu: {} bytes are too many; at most {CPU_BYTES_MAX}", cpu.len())
        });
        for word in words {
            let flag = word.strip_prefix(['+', '-']).unwrap_or(word);
            let flag = flag.strip_suffix("=on").or(flag.strip_suffix("=off")).unwrap_or(flag);
            self.check(is_name(flag, 64), || {
                format!("cpu: {word:?} is no CPU flag; write +flag, -flag, flag=on or flag=off")
            });
        }
    }

    fn boot(&mut self, boot: &Boot) {
        self.path("boot.kernel", "boot_dir", &boot.kernel);
        if let Some(initrd) = &boot.initrd {
            self.path("boot.initrd", "boot_dir", initrd);
        }
        let bytes = boot.append.len();
        self.check(bytes <= APPEND_BYTES_MAX, || {
            format!("boot.append: {bytes} bytes are too many; at most {APPEND_BYTES_MAX}")
        });
        self.check(!boot.append.chars().any(char::is_control), || {
            "boot.append: it has a control character; write one line".into()
        });
    }

    fn path(&mut self, place: &str, folder: &str, path: &Path) {
        self.check(is_inner_path(path), || {
            format!(
                "{place}: {path:?} must be a path below the host's {folder}: relative, without .. and commas"
            )
        });
    }

    fn devices(&mut self, disks: &[Disk], nics: &[Nic]) {
        for (kind, count) in [("disk", disks.len()), ("nic", nics.len())] {
            self.check(count <= DEVICES_MAX, || {
                format!("{kind}: {count} are too many; at most {DEVICES_MAX}")
            });
        }
        let mut ids = BTreeSet::new();
        for id in disks.iter().map(|disk| &disk.id).chain(nics.iter().map(|nic| &nic.id)) {
            let good =
                is_name(id, ID_BYTES_MAX) && id.starts_with(|letter: char| letter.is_ascii_alphabetic());
            self.check(good, || {
                format!(
                    "id: {id:?} is no id: letters, digits, - _ . only, a letter first, at most {ID_BYTES_MAX}"
                )
            });
            self.check(ids.insert(id), || {
                format!("id: {id:?} is there twice; ids of disks and cards must differ")
            });
        }
        let mut images = BTreeSet::new();
        for disk in disks {
            // It would be what another disk remembers, or lie where that will be.
            let is_of_sidecar = |part: Component| part.as_os_str().to_string_lossy().contains(".blockd");
            let is_sidecar = disk.image.components().any(is_of_sidecar);
            self.check(!is_sidecar, || {
                format!("disk {}: image {:?} has the name of a sidecar; give it another", disk.id, disk.image)
            });
            self.path(&format!("disk {}: image", disk.id), "images_dir", &disk.image);
            self.check(images.insert(&disk.image), || {
                format!("disk {}: image {:?} belongs to another disk already", disk.id, disk.image)
            });
            self.format(disk);
        }
        self.nics(nics);
    }

    fn format(&mut self, disk: &Disk) {
        let Some(format) = disk.format.as_deref().filter(|format| *format != "raw") else { return };
        self.0.push(format!(
            "disk {}: format {format:?} is not there yet, only \"raw\" is; convert the image (qemu-img convert -O raw), and \
             leave the key out",
            disk.id
        ));
    }

    fn nics(&mut self, nics: &[Nic]) {
        let (mut macs, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for Nic { id, mac, bridge, address, dns_name } in nics {
            match parse_mac(mac) {
                Some(bytes) => self.check(macs.insert(bytes), || format!("nic {id}: mac {mac} is there twice")),
                None => self.0.push(format!(
                    "nic {id}: mac {mac:?} is no hardware address of one card; write one like 52:54:00:12:34:56"
                )),
            }
            self.check(is_name(bridge, NAME_BYTES_MAX), || {
                format!("nic {id}: bridge {bridge:?} is no name; each host maps it to its own bridge under [bridges]")
            });
            if let Some(address) = address {
                let single = !(address.is_multicast()
                    || address.is_broadcast()
                    || address.is_loopback()
                    || address.is_unspecified());
                self.check(single, || format!("nic {id}: {address} is no address of one machine"));
                self.check(addresses.insert(*address), || {
                    format!("nic {id}: address {address} is there twice")
                });
            }
            if let Some(name) = dns_name {
                self.check(is_host_name(name), || {
                    let how = suggestion(name).unwrap_or_else(|| "web.example.org".into());
                    format!("nic {id}: dns_name {name:?} is no name of DNS; write it like {how}")
                });
                self.check(address.is_some(), || {
                    format!("nic {id}: dns_name without an address; write the address that the name has")
                });
            }
        }
    }
}

/// Reads `52:54:00:12:34:56`; none for anything else, for a group's address and for all zeroes.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use crate::guest::{Guest, GuestError};

    const WHOLE: &str = r#"
name = "web"
memory_mib = 256
accel = "tcg"
[boot]
kernel = "vmlinuz"
initrd = "sub/initrd.img"
append = "console=ttyS0, root=/dev/vda"
[[disk]]
id = "root"
image = "web.raw"
[[nic]]
id = "net0"
mac = "52:54:00:12:34:56"
bridge = "lan"
address = "10.1.0.7"
dns_name = "web.example.org"
"#;

    #[test]
    fn a_whole_description_is_read_with_its_defaults() {
        let guest = Guest::parse(WHOLE).unwrap();
        assert_eq!((guest.vcpus, guest.machine.as_str(), guest.cpu.as_str()), (1, "pc-i440fx-7.2", "qemu64"));
        assert_eq!(guest.disk_name(&guest.disks[0]), "web-root");
    }

    #[test]
    fn a_description_is_the_same_after_travelling_as_json_and_as_toml() {
        let guest = Guest::parse(WHOLE).unwrap();
        let json = serde_json::to_string(&guest).unwrap();
        assert_eq!(serde_json::from_str::<Guest>(&json).unwrap(), guest);
        assert_eq!(Guest::parse(&toml::to_string(&guest).unwrap()).unwrap(), guest);
    }

    #[test]
    fn how_an_image_is_read_is_said_here_and_to_no_other_host() {
        let text = WHOLE.replacen("\"web.raw\"", "\"web.raw\"\nformat = \"raw\"", 1);
        let guest = Guest::parse(&text).unwrap();
        assert_eq!(guest.disks[0].format.as_deref(), Some("raw"));
        assert_eq!(Guest::parse(&toml::to_string(&guest).unwrap()).unwrap(), guest);
        assert_eq!(guest.for_a_peer(), Guest::parse(WHOLE).unwrap());
        assert!(!serde_json::to_string(&guest.for_a_peer()).unwrap().contains("format"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = Guest::parse("name = \"web\"\nmemory_mib = 1\ncommand = \"rm\"\n").unwrap_err();
        assert!(
            matches!(&error, GuestError::Unreadable(text) if text.contains("line 3") && text.contains("command"))
        );
    }

    /// One field changed, one fault, which names the field.
    #[test]
    fn each_bad_field_is_named() {
        let cases = [
            ("\"web\"", "\"../web\"", "name:"),
            ("\"web\"", "\"\"", "name:"),
            ("\"web\"", &format!("\"{}\"", "x".repeat(41)), "name:"),
            ("memory_mib = 256", "memory_mib = 0", "memory_mib: 0"),
            ("memory_mib = 256", "memory_mib = 99999999", "memory_mib:"),
            ("accel = \"tcg\"", "vcpus = 0", "vcpus:"),
            ("accel = \"tcg\"", "machine = \"pc\"", "machine: \"pc\""),
            ("accel = \"tcg\"", "machine = \"pc-i440fx-7.2,dump-guest-core=on\"", "machine:"),
            ("accel = \"tcg\"", "cpu = \"host\"", "cpu: \"host\""),
            ("accel = \"tcg\"", "cpu = \"max\"", "cpu: \"max\""),
            ("accel = \"tcg\"", "cpu = \"qemu64,hv_vendor_id=x y\"", "cpu: \"hv_vendor_id"),
            ("\"vmlinuz\"", "\"/etc/shadow\"", "boot.kernel:"),
            ("\"sub/initrd.img\"", "\"sub/../../x\"", "boot.initrd:"),
            ("root=/dev/vda", "root=\\n", "boot.append:"),
            ("\"web.raw\"", "\"../web.raw\"", "disk root: image"),
            ("\"web.raw\"", "\"web.raw,x\"", "disk root: image"),
            ("\"web.raw\"", "\"db.raw.blockd\"", "name of a sidecar"),
            ("\"web.raw\"", "\"db.raw.blockd.new\"", "name of a sidecar"),
            ("\"web.raw\"", "\"db.blockd/x.raw\"", "name of a sidecar"),
            ("\"web.raw\"", "\"web\\u0000.raw\"", "disk root: image"),
            ("\"web.raw\"", "\"./../web.raw\"", "disk root: image"),
            ("accel = \"tcg\"", &format!("cpu = \"qemu64{}\"", ",+a".repeat(400)), "cpu: 1206 bytes"),
            ("\"root\"", "\"0root\"", "id: \"0root\""),
            ("\"root\"", "\"root,serial=x\"", "id:"),
            ("\"root\"", "\"net0\"", "id: \"net0\" is there twice"),
            ("52:54:00:12:34:56", "52:54:00:12:34", "nic net0: mac"),
            ("52:54:00:12:34:56", "01:54:00:12:34:56", "nic net0: mac"),
            ("52:54:00:12:34:56", "52:54:00:12:34:56,x=y", "nic net0: mac"),
            (
                "image = \"web.raw\"",
                "image = \"web.raw\"\nformat = \"qcow2\"",
                "disk root: format \"qcow2\" is not there",
            ),
            (
                "image = \"web.raw\"",
                "image = \"web.raw\"\nformat = \"\"",
                "disk root: format \"\" is not there",
            ),
            ("\"lan\"", "\"a b\"", "nic net0: bridge"),
            ("\"10.1.0.7\"", "\"224.0.0.1\"", "nic net0: 224.0.0.1"),
            ("web.example.org", "web example", "nic net0: dns_name"),
            ("address = \"10.1.0.7\"", "", "nic net0: dns_name without an address"),
        ];
        for (old, new, named) in cases {
            let text = WHOLE.replacen(old, new, 1);
            assert_ne!(text, WHOLE, "{old} is not in the description");
            match Guest::parse(&text) {
                Err(GuestError::Faults(faults)) => {
                    assert_eq!(faults.len(), 1, "{faults:?}");
                    assert!(faults[0].contains(named), "{named}: {faults:?}");
                }
                other => panic!("{new}: {other:?}"),
            }
        }
    }

    #[test]
    fn all_faults_come_at_once() {
        let text =
            WHOLE.replace("256", "0").replace("\"web.raw\"", "\"/web.raw\"").replace("\"lan\"", "\"\"");
        let Err(GuestError::Faults(faults)) = Guest::parse(&text) else { panic!("it was taken") };
        assert_eq!(faults.len(), 3, "{faults:?}");
        let Err(GuestError::Faults(faults)) = Guest::parse("name = \"a\"\nmemory_mib = 1\n") else {
            panic!("it was taken")
        };
        assert!(faults[0].starts_with("disk: there is neither"), "{faults:?}");
    }
}
