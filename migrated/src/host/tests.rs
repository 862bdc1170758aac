//! Tests of what a host refuses.

use std::collections::BTreeMap;

use super::{Facts, Flags, Image, Kvm, Refusal, Reservation, Reservations, Sender, Wanted, check};
use crate::config::{Allowance, parse};
use crate::guest::{Accel, Guest};
use crate::peer::DiskSize;
use crate::qemu::Accelerator;

const MIB: u64 = 1 << 20;

fn guest() -> Guest {
    Guest::parse(
        "name = \"web\"\nmemory_mib = 512\n[boot]\nkernel = \"k\"\n[[disk]]\nid = \"root\"\nimage = \"w.raw\"\n\
         [[nic]]\nid = \"net0\"\nmac = \"52:54:00:12:34:56\"\nbridge = \"lan\"\n",
    )
    .unwrap()
}

fn facts() -> Facts {
    let models = BTreeMap::from([("qemu64".to_owned(), Vec::new())]);
    Facts {
        memory_available_mib: 4096,
        memory_limit_mib: 4096,
        disk_available_bytes: 100 * MIB,
        disk_overcommit: 1,
        architecture: "x86_64".into(),
        qemu_version: "7.2.22".into(),
        machines: ["pc-i440fx-7.2".to_owned()].into(),
        cpus: BTreeMap::from([(Accelerator::Tcg, models.clone()), (Accelerator::Kvm, models)]),
        flags: BTreeMap::from([(Accelerator::Tcg, flags())]),
        kvm: Kvm::Absent("there is no /dev/kvm".into()),
        bridges: BTreeMap::from([("lan".into(), ("br0".into(), true))]),
        boot_digests: vec![("k".into(), Ok("aa".into()))],
        is_stopped_here: false,
        images: BTreeMap::from([("root".into(), Image::Absent)]),
    }
}

/// As QEMU says it: sse4.1 is here, avx512f and x2apic are not, and hv-relaxed is no feature of a CPU.
fn flags() -> Flags {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Flags {
        known: names(&["avx", "avx512f", "hv-relaxed", "pni", "sse4-1", "x2apic"]),
        lacking: names(&["avx512f", "x2apic"]),
    }
}

fn disks() -> Vec<DiskSize> {
    vec![DiskSize { id: "root".into(), size_bytes: 64 * MIB, allocated_bytes: 7 * MIB }]
}

fn refusals(facts: &Facts, promised: &Reservations, guest: &Guest) -> Vec<Refusal> {
    let (disks, digests) = (disks(), ["aa".to_owned()]);
    let wanted = Wanted {
        guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "x86_64",
        qemu_version: "7.2.22",
        accel: "tcg",
        sender: None,
    };
    check(facts, promised, &wanted)
}

fn promise(memory_mib: u64, memory_used_mib: u64, disk_bytes: u64) -> Reservation {
    Reservation {
        holder: "migration 12ab holds it".into(),
        memory_mib,
        memory_used_mib,
        disk_bytes,
        disk_size_bytes: disk_bytes,
        vcpus: 2,
        from: Some("site-b".into()),
        is_arriving: false,
        nics: Vec::new(),
    }
}

#[test]
fn a_host_with_room_refuses_nothing() {
    assert_eq!(refusals(&facts(), &Reservations::default(), &guest()), []);
}

/// S0-29: what is promised is not free, and what a guest has touched is not counted twice.
#[test]
fn memory_is_refused_with_needed_and_available() {
    let mut promised = Reservations::default();
    promised.reserve("db", promise(3000, 0, 0)).unwrap();
    assert_eq!(refusals(&facts(), &promised, &guest()), []);
    promised.reserve("mail", promise(600, 0, 0)).unwrap();
    let refused = Refusal::Memory { needed_mib: 512, available_mib: 4096 - 3600 - 64, holders: Vec::new() };
    assert_eq!(refusals(&facts(), &promised, &guest()), [refused]);
    promised.get_mut("db").unwrap().memory_used_mib = 3000;
    // Now the limit counts: 4096 for all guests together.
    let refused = Refusal::Memory { needed_mib: 512, available_mib: 496, holders: Vec::new() };
    let found = refusals(&facts(), &promised, &guest());
    assert_eq!(found, [refused]);
    let text = found[0].to_string();
    assert!(text.contains("512 MiB are needed and 496 MiB available"), "{text}");
    assert!(promised.release("mail") && !promised.release("mail"));
    assert_eq!(refusals(&facts(), &promised, &guest()), []);
}

/// S0-30: a sparse disk may grow to its full size; what is here already needs no more room.
#[test]
fn disk_space_is_refused_with_the_numbers() {
    let mut promised = Reservations::default();
    promised.reserve("db", promise(1, 0, 40 * MIB)).unwrap();
    let refused = Refusal::Disk { needed_mib: 66, allocated_mib: 7, available_mib: 60, holders: Vec::new() };
    assert_eq!(refusals(&facts(), &promised, &guest()), [refused]);
    let mut facts = facts();
    facts.images.insert("root".into(), Image::Ours { allocated_bytes: 6 * MIB });
    assert_eq!(refusals(&facts, &promised, &guest()), []);
}

/// S0-31, S0-32, S0-33.
#[test]
fn another_hypervisor_machine_or_cpu_is_refused_by_name() {
    let mut facts = facts();
    facts.machines.clear();
    facts.cpus.get_mut(&Accelerator::Tcg).unwrap().insert("qemu64".into(), vec!["pni".into(), "avx".into()]);
    let found = refusals(&facts, &Reservations::default(), &guest());
    let machine =
        Refusal::Machine { machine: "pc-i440fx-7.2".into(), here: "7.2.22".into(), there: "7.2.22".into() };
    let flags = Refusal::CpuFlags { model: "qemu64".into(), missing: vec!["pni".into(), "avx".into()] };
    assert_eq!(found, [machine, flags]);
    assert!(found[1].to_string().contains("lacks pni, avx"));
    let mut without = guest();
    without.cpu = "qemu64,-pni,avx=off".into();
    assert_eq!(refusals(&facts, &Reservations::default(), &without).len(), 1);
    without.cpu = "epyc".into();
    let found = refusals(&facts, &Reservations::default(), &without);
    assert!(matches!(&found[1], Refusal::Cpu { model, .. } if model == "epyc"), "{found:?}");
}

/// S0-33: also what the description adds to a model, however it is written.
#[test]
fn a_flag_that_is_added_and_not_to_be_had_is_refused_by_name() {
    let found = |cpu: &str| {
        let guest = Guest { cpu: cpu.to_owned(), ..guest() };
        refusals(&facts(), &Reservations::default(), &guest)
    };
    for fits in
        ["qemu64", "qemu64,+sse4.1", "qemu64,sse4_1=on", "qemu64,+sse4-1,hv_relaxed=on", "qemu64,-avx512f"]
    {
        assert_eq!(found(fits), [], "{fits}");
    }
    // What is switched off is not wanted, whatever comes first.
    assert_eq!(found("qemu64,+avx512f,-avx512f,avx512f=off"), []);
    let lacks = |missing: &[&str]| {
        let missing = missing.iter().map(|flag| (*flag).to_owned()).collect();
        Refusal::CpuFlags { model: "qemu64".into(), missing }
    };
    assert_eq!(found("qemu64,+avx512f"), [lacks(&["avx512f"])]);
    assert_eq!(found("qemu64,x2apic=on,+sse4.1,+avx512f"), [lacks(&["avx512f", "x2apic"])]);
    assert!(found("qemu64,+avx512f")[0].to_string().contains("this host lacks avx512f for the model qemu64"));
    let unknown = Refusal::CpuFlagsUnknown { unknown: vec!["avx513".into()], here: "7.2.22".into() };
    assert_eq!(found("qemu64,+avx513,+avx512f"), [lacks(&["avx512f"]), unknown.clone()]);
    assert_eq!(found("qemu64,-avx513"), [unknown]);

    // One that the model lacks already is named once; a QEMU that does not say what it knows is not guessed at.
    let mut facts = facts();
    facts.cpus.get_mut(&Accelerator::Tcg).unwrap().insert("qemu64".into(), vec!["avx512f".into()]);
    let guest = Guest { cpu: "qemu64,+avx512f,+sse4.1".into(), ..guest() };
    assert_eq!(refusals(&facts, &Reservations::default(), &guest), [lacks(&["avx512f"])]);
    facts.flags.clear();
    let guest = Guest { cpu: "qemu64,-avx512f,+avx513".into(), ..guest };
    assert_eq!(refusals(&facts, &Reservations::default(), &guest), []);
}

#[test]
fn of_very_many_flags_the_first_are_named_and_the_others_counted() {
    let with = |count: usize| {
        let missing = (1..=count).map(|number| format!("f{number}")).collect();
        Refusal::CpuFlags { model: "EPYC".into(), missing }.to_string()
    };
    assert!(with(12).contains("lacks f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12 for the model"));
    assert!(with(13).contains("f11, f12 and 1 more for the model"), "{}", with(13));
    assert!(with(300).contains("f12 and 288 more for") && with(300).len() < 250, "{}", with(300));
}

#[test]
fn a_running_guest_does_not_change_its_accelerator() {
    let mut facts = facts();
    facts.kvm = Kvm::Usable;
    let found = refusals(&facts, &Reservations::default(), &guest());
    assert!(matches!(&found[..], [Refusal::Accelerator { wanted, .. }] if wanted == "tcg"), "{found:?}");
    let mut emulated = guest();
    emulated.accel = Accel::Tcg;
    assert_eq!(refusals(&facts, &Reservations::default(), &emulated), []);
}

#[test]
fn kvm_is_taken_by_itself_only_where_guests_run_on_it() {
    let with = |kvm: Kvm, accel| Facts { kvm, ..Facts::default() }.accelerator(accel);
    let doubtful = Kvm::Doubtful("slow".into());
    assert_eq!(with(Kvm::Usable, Accel::Auto), Ok(Accelerator::Kvm));
    assert_eq!(with(doubtful.clone(), Accel::Auto), Ok(Accelerator::Tcg));
    assert_eq!(with(doubtful, Accel::Kvm), Ok(Accelerator::Kvm));
    assert_eq!(with(Kvm::Absent("no".into()), Accel::Kvm), Err("no".into()));
    assert_eq!(with(Kvm::Usable, Accel::Tcg), Ok(Accelerator::Tcg));
}

/// Nothing is left for a second try.
#[test]
fn all_refusals_come_at_once() {
    let mut facts = facts();
    facts.memory_available_mib = 100;
    facts.disk_available_bytes = 0;
    facts.machines.clear();
    facts.bridges.clear();
    facts.boot_digests[0].1 = Ok("bb".into());
    facts.images.insert("root".into(), Image::Taken("a stranger's".into()));
    let mut promised = Reservations::default();
    promised.reserve("web", promise(0, 0, 0)).unwrap();
    let again = promised.reserve("web", promise(0, 0, 0)).unwrap_err();
    let mut wrong = guest();
    wrong.vcpus = 0;
    let found = refusals(&facts, &promised, &wrong);
    assert_eq!(found.len(), 8, "{found:#?}");
    assert!(found.contains(&again), "{found:#?}");
    assert!(again.to_string().contains("migration 12ab holds it"));
    facts.bridges.insert("lan".into(), ("br9".into(), false));
    let found = refusals(&facts, &promised, &wrong);
    assert!(found.contains(&Refusal::BridgeAbsent { name: "lan".into(), here: "br9".into() }));
}

/// What `[allow.site-b]` with these lines says of the guest, by the keys that forbid it.
fn forbidding(lines: &str, promised: &Reservations, guest: &Guest) -> Vec<String> {
    // Room is another matter.
    let facts = Facts { disk_available_bytes: u64::MAX, ..facts() };
    let text = format!("name = \"a\"\nlisten = \"192.0.2.1:7070\"\n[allow.site-b]\n{lines}\n");
    let config = parse(&text).unwrap();
    let sender = Sender { name: "site-b", allowance: config.allowance("site-b") };
    let (disks, digests) = (disks(), ["aa".to_owned()]);
    let wanted = Wanted {
        guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "x86_64",
        qemu_version: "7.2.22",
        accel: "tcg",
        sender: Some(sender),
    };
    let key = |refusal: Refusal| match refusal {
        Refusal::NotAllowed { peer, key, .. } if peer == "site-b" => key,
        other => panic!("{other}"),
    };
    check(&facts, promised, &wanted).into_iter().map(key).collect()
}

#[test]
fn what_a_peer_may_not_send_is_refused_by_the_key_that_forbids_it() {
    let mut guest = guest();
    guest.vcpus = 2;
    guest.nics[0].address = Some("10.1.0.7".parse().unwrap());
    guest.nics[0].dns_name = Some("Web.example.org".into());
    let none = Reservations::default();
    let cases = [
        ("guests = [\"db\", \"mail*\"]", "guests = [\"w*b\"]"),
        ("guests = []", "guests_max = 1"),
        ("memory_mib = 511", "memory_mib = 512"),
        ("cpus = 1", "cpus = 2"),
        ("bridges = [\"dmz\"]", "bridges = [\"dmz\", \"lan\"]"),
        ("images = \"w\"", "images = \"w.raw\""),
        ("addresses = [\"10.1.1.0/24\"]", "addresses = [\"10.1.1.0/24\", \"10.1.0.0/24\"]"),
        ("dns_names = [\"*.example.com\"]", "dns_names = [\"*.example.org\"]"),
    ];
    for (forbids, allows) in cases {
        let key = forbids.split(' ').next().unwrap();
        assert_eq!(forbidding(forbids, &none, &guest), [key], "{forbids}");
        assert_eq!(forbidding(allows, &none, &guest), [""; 0], "{allows}");
    }
    let all: Vec<&str> =
        cases.iter().map(|(forbids, _)| *forbids).filter(|one| *one != "guests = []").collect();
    assert_eq!(forbidding(&all.join("\n"), &none, &guest).len(), all.len(), "all come at once");
}

/// Quotas are for all guests of a peer together, here and on their way; what others sent does not count.
#[test]
fn a_peers_share_counts_what_it_has_sent_already() {
    let mut promised = Reservations::default();
    promised.reserve("db", promise(1000, 0, 3 << 30)).unwrap();
    promised.reserve("own", Reservation { from: None, ..promise(1000, 0, 0) }).unwrap();
    let mut guest = guest();
    guest.memory_mib = 100;
    let cases = [
        ("guests_max = 1", "guests_max = 2"),
        ("memory_mib = 1099", "memory_mib = 1100"),
        ("cpus = 2", "cpus = 3"),
        ("disk_gib = 3", "disk_gib = 4"),
    ];
    for (forbids, allows) in cases {
        let key = forbids.split(' ').next().unwrap();
        assert_eq!(forbidding(forbids, &promised, &guest), [key], "{forbids}");
        assert_eq!(forbidding(allows, &promised, &guest), [""; 0], "{allows}");
    }
}

#[test]
fn a_peer_that_is_not_listed_where_others_are_may_send_nothing() {
    let sender = Sender { name: "site-c", allowance: Allowance::Nothing };
    let (guest, disks, digests) = (guest(), disks(), ["aa".to_owned()]);
    let wanted = Wanted {
        guest: &guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "x86_64",
        qemu_version: "7.2.22",
        accel: "tcg",
        sender: Some(sender),
    };
    let found = check(&facts(), &Reservations::default(), &wanted);
    assert_eq!(found, [Refusal::NotListed { peer: "site-c".into() }]);
    assert!(found[0].to_string().contains("[allow.site-c]"));
}

/// A size is another host's word: no sum comes round to a small one.
#[test]
fn sizes_without_measure_are_refused() {
    let (guest, digests) = (guest(), ["aa".to_owned()]);
    let disk = |size_bytes| DiskSize { id: "root".into(), size_bytes, allocated_bytes: u64::MAX };
    let disks = [disk(u64::MAX), disk(u64::MAX), disk(2)];
    let wanted = Wanted {
        guest: &guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "x86_64",
        qemu_version: "7.2.22",
        accel: "tcg",
        sender: None,
    };
    let found = check(&facts(), &Reservations::default(), &wanted);
    assert!(matches!(found[..], [Refusal::Disk { .. }]), "{found:?}");
}

/// S0-37: the room is promised under the lock that it was looked at under, and who has it is said.
#[test]
fn two_hosts_that_want_the_same_room_get_it_once() {
    let mut facts = facts();
    facts.memory_limit_mib = 1000;
    facts.disk_available_bytes = 100 * MIB;
    let mut promised = Reservations::default();
    let (disks, digests) = (disks(), ["aa".to_owned()]);
    let web = guest();
    let mut db = guest();
    db.name = "db".into();
    let wanted = |guest, name| Wanted {
        guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "x86_64",
        qemu_version: "7.2.22",
        accel: "tcg",
        sender: Some(Sender { name, allowance: Allowance::Anything }),
    };
    let (first, second) = (wanted(&web, "site-b"), wanted(&db, "site-c"));
    assert_eq!(check(&facts, &promised, &first), []);
    promised.reserve("web", facts.reservation(&first, "migration 12ab from site-b holds it")).unwrap();
    let found = check(&facts, &promised, &second);
    assert!(matches!(found[..], [Refusal::Memory { .. }, Refusal::Disk { .. }]), "{found:?}");
    assert!(
        found.iter().all(|one| one.to_string().contains("(migration 12ab from site-b holds it)")),
        "{found:?}"
    );
    // The very same guest from another host is told so too.
    let found = check(&facts, &promised, &wanted(&web, "site-c"));
    assert!(found[0].to_string().contains("migration 12ab from site-b holds it"), "{found:?}");
    assert!(promised.release("web"));
    assert_eq!(check(&facts, &promised, &second), []);
}

#[test]
fn a_guest_that_is_stopped_here_is_not_replaced() {
    let facts = Facts { is_stopped_here: true, ..facts() };
    let (guest, disks, digests) = (guest(), disks(), ["aa".to_owned()]);
    let sender = Some(Sender { name: "site-b", allowance: Allowance::Anything });
    let wanted = Wanted {
        guest: &guest,
        disks: &disks,
        boot_digests: &digests,
        architecture: "x86_64",
        qemu_version: "7.2.22",
        accel: "tcg",
        sender,
    };
    let found = check(&facts, &Reservations::default(), &wanted);
    assert!(found.len() == 1 && found[0].to_string().contains("it is stopped here"), "{found:?}");
    assert_eq!(check(&facts, &Reservations::default(), &Wanted { sender: None, ..wanted }), []);
}

/// S2-05: a guest of other processors, or of 64 bits where there are 32, is refused with that reason; one of 32 goes anywhere.
#[test]
fn a_guest_goes_only_where_processors_are_of_its_kind_and_have_its_bits() {
    let arm = Facts { architecture: "aarch64".into(), ..facts() };
    let (here, guest_of) = ("aarch64".to_owned(), "x86_64".to_owned());
    let found = refusals(&arm, &Reservations::default(), &guest());
    assert_eq!(found, [Refusal::Architecture { guest: guest_of, here }]);
    assert!(found[0].to_string().contains("this host has aarch64"));

    let models = BTreeMap::from([
        ("qemu64".to_owned(), vec!["lm".to_owned(), "syscall".to_owned()]),
        ("qemu32".to_owned(), Vec::new()),
    ]);
    let narrow = Facts { cpus: BTreeMap::from([(Accelerator::Tcg, models)]), ..facts() };
    let of = |cpu: &str| refusals(&narrow, &Reservations::default(), &Guest { cpu: cpu.into(), ..guest() });
    let (long, rest) = (
        Refusal::LongMode { model: "qemu64".into() },
        Refusal::CpuFlags { model: "qemu64".into(), missing: vec!["syscall".into()] },
    );
    assert_eq!(of("qemu64"), [long, rest]);
    assert_eq!(of("qemu32"), []);
}
