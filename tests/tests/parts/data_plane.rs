//! Both data planes against foreign clients and hostile ones, on a raw file.

use std::fs;
use std::io::{Read, Write};

use blockd::io::mailbox;
use blockd::server::CONNECTIONS_MAX;

mod plane;

use plane::{BOTH, DISK_BYTES, Plane, each_plane, noise};

#[test]
fn qemu_img_copies_a_disk_in_and_finds_it_identical() {
    each_plane(|plane| {
        let source = plane.path("source.raw");
        fs::write(&source, noise(DISK_BYTES as usize, 1)).unwrap();
        let uri = plane.uri();
        assert!(plane.run("qemu-img", &["info", &uri]).contains(&format!("({DISK_BYTES} bytes)")));
        plane.run("qemu-img", &["convert", "-n", "-f", "raw", "-O", "raw", &source, &uri]);
        assert!(
            plane
                .run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &source, &uri])
                .contains("identical")
        );
        assert!(plane.disk() == fs::read(&source).unwrap());
    });
}

#[test]
fn qemu_io_finds_what_it_wrote_zeroed_and_discarded() {
    each_plane(|plane| {
        plane.qemu_io(&[
            "write -P 7 0 8M",
            "write -f -P 8 1M 64k",
            "write -z 2M 1M",
            "write -z -u 3M 1M",
            "discard 4M 1M",
            "write -P 9 5000k 512",
            "flush",
            "read -P 7 0 1M",
            "read -P 8 1M 64k",
            "read -P 0 2M 2M",
            "read -P 9 5000k 512",
        ]);
        let disk = plane.disk();
        assert!(disk[..1 << 20].iter().all(|byte| *byte == 7));
        assert!(disk[2 << 20..4 << 20].iter().all(|byte| *byte == 0));
        assert!(disk[5 << 20..8 << 20].iter().all(|byte| *byte == 7));
    });
}

#[test]
fn libnbd_sees_holes_and_copies_over_several_connections() {
    each_plane(|plane| {
        let source = plane.path("source.raw");
        let mut bytes = noise(DISK_BYTES as usize, 2);
        bytes[8 << 20..16 << 20].fill(0);
        fs::write(&source, &bytes).unwrap();
        let uri = plane.uri();
        assert!(plane.run("nbdinfo", &[&uri]).contains("can_multi_conn: true"));
        plane.run("nbdcopy", &[&source, &uri]);
        assert!(plane.disk() == bytes);
        let map = plane.run("nbdinfo", &["--map", &uri]);
        assert!(map.contains("hole,zero") && map.contains("data"), "{map}");
        let back = plane.path("back.raw");
        plane.run("nbdcopy", &[&uri, &back]);
        assert!(fs::read(back).unwrap() == bytes);
    });
}

#[test]
fn the_nbd_crate_reads_what_it_wrote() {
    each_plane(|plane| {
        let mut stream = plane.connect();
        let export = nbd::client::handshake(&mut stream, b"").unwrap();
        let mut client = nbd::client::NbdClient::new(&mut stream, &export);
        let data = noise(100_000, 3);
        std::io::Seek::seek(&mut client, std::io::SeekFrom::Start(12_345)).unwrap();
        client.write_all(&data).unwrap();
        std::io::Seek::seek(&mut client, std::io::SeekFrom::Start(12_345)).unwrap();
        let mut back = vec![0; data.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == data);
    });
}

#[test]
fn many_clients_at_once_are_served_and_one_too_many_is_turned_away() {
    each_plane(|plane| {
        let mut clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| plane.client()).collect();
        let mut late = plane.connect();
        assert_eq!(late.read(&mut [0; 18]).unwrap(), 0);
        for (cookie, client) in (1_u64..).zip(&mut clients) {
            client.request(1, cookie, cookie * 4096, 4096);
            client.0.write_all(&[cookie as u8; 4096]).unwrap();
        }
        for (cookie, client) in (1_u64..).zip(&mut clients) {
            assert_eq!(client.reply(), (0, cookie));
        }
        let disk = plane.disk();
        for index in 1..=CONNECTIONS_MAX {
            assert!(disk[index * 4096..][..4096].iter().all(|byte| *byte == index as u8));
        }
    });
}

#[test]
fn a_thousand_clients_come_and_go() {
    each_plane(|plane| {
        for round in 0..1000_u64 {
            let mut client = plane.client();
            client.request(0, round, 0, 512);
            assert_eq!(client.reply(), (0, round));
            let mut data = [0; 512];
            client.0.read_exact(&mut data).unwrap();
            client.request(2, 0, 0, 0);
            assert!(client.ends_in_silence());
        }
    });
}

#[test]
fn a_client_that_dies_in_mid_write_leaves_the_disk_and_the_others_alone() {
    each_plane(|plane| {
        let mut other = plane.client();
        for length in [20_000_u32, 1 << 20] {
            let mut client = plane.client();
            client.request(1, 1, 0, length);
            client.0.write_all(&vec![1; length as usize - 1]).unwrap();
            drop(client);
        }
        other.request(3, 2, 0, 0);
        assert_eq!(other.reply(), (0, 2));
        assert!(plane.disk().iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_client_that_dies_with_reads_under_way_is_forgotten() {
    each_plane(|plane| {
        for round in 0..4 * CONNECTIONS_MAX as u64 {
            let mut client = plane.client();
            (0..40).for_each(|cookie| client.request(0, cookie, round << 16, 1 << 20));
        }
        plane.qemu_io(&["read 0 1M"]);
    });
}

#[test]
fn garbage_ends_its_own_connection_and_no_other() {
    each_plane(|plane| {
        let mut honest = plane.client();
        for seed in 0..50 {
            let mut raw = plane.connect();
            // The server may close before it has read everything.
            let _ = raw.write_all(&noise(300, seed));
            // Ends, with whatever, only because the server closes.
            let _ = raw.read_to_end(&mut Vec::new());
            let mut client = plane.client();
            let _ = client.0.write_all(&noise(300, seed));
            assert!(client.ends_in_silence());
        }
        let mut huge = plane.client();
        huge.request(1, 1, 0, u32::MAX);
        assert!(huge.ends_in_silence());
        honest.request(0, 5, 0, 512);
        assert_eq!(honest.reply(), (0, 5));
    });
}

#[test]
fn requests_outside_the_disk_are_refused_and_the_connection_goes_on() {
    each_plane(|plane| {
        let mut client = plane.client();
        client.request(0, 1, DISK_BYTES, 512);
        assert_eq!(client.reply(), (22, 1));
        client.request(1, 2, DISK_BYTES - 512, 4096);
        client.0.write_all(&[1; 4096]).unwrap();
        assert_eq!(client.reply(), (28, 2));
        client.request(3, 3, 0, 0);
        assert_eq!(client.reply(), (0, 3));
    });
}

#[test]
fn a_file_that_was_cut_short_fails_what_lies_past_its_end() {
    each_plane(|plane| {
        let file = fs::OpenOptions::new().write(true).open(plane.path("disk.raw")).unwrap();
        file.set_len(1 << 20).unwrap();
        let mut client = plane.client();
        client.request(0, 1, (1 << 20) - 512, 1024);
        assert_eq!(client.reply(), (5, 1));
        client.request(3, 2, 0, 0);
        assert_eq!(client.reply(), (0, 2), "and the daemon goes on");
    });
}

#[test]
fn a_client_that_goes_away_takes_its_held_writes_with_it() {
    each_plane(|plane| {
        plane.mailbox.ask(|server, _| server.volume_mut().hold()).unwrap();
        for _ in 0..40 {
            let mut writer = plane.client();
            writer.request(1, 1, 0, 512);
            writer.0.write_all(&[4; 512]).unwrap();
            drop(writer);
            while plane.mailbox.ask(|server, _| server.connections()).unwrap() > 0 {
                std::thread::yield_now();
            }
        }
        let mut reader = plane.client();
        reader.request(0, 2, 0, 512);
        assert_eq!(reader.reply(), (0, 2), "there is room for another client");
        plane.mailbox.ask(|server, _| server.volume_mut().release()).unwrap();
        assert_eq!(plane.disk()[..512], [0; 512]);
    });
}

#[test]
fn held_writes_wait_for_release_while_reads_are_answered() {
    each_plane(|plane| {
        plane.mailbox.ask(|server, _| server.volume_mut().hold()).unwrap();
        let (mut writer, mut reader) = (plane.client(), plane.client());
        writer.request(1, 1, 0, 512);
        writer.0.write_all(&[4; 512]).unwrap();
        reader.request(0, 2, 0, 512);
        assert_eq!(reader.reply(), (0, 2));
        let mut data = [9; 512];
        reader.0.read_exact(&mut data).unwrap();
        assert_eq!(data, [0; 512]);
        plane.mailbox.ask(|server, _| server.volume_mut().release()).unwrap();
        assert_eq!(writer.reply(), (0, 1));
        assert_eq!(plane.disk()[..512], [4; 512]);
    });
}

#[test]
fn a_plane_that_stops_drops_its_clients_without_a_word() {
    for choice in BOTH {
        let Some(plane) = Plane::start(choice) else { continue };
        plane.mailbox.ask(|server, _| server.volume_mut().hold()).unwrap();
        let mut client = plane.client();
        client.request(1, 1, 0, 512);
        client.0.write_all(&[1; 512]).unwrap();
        let mailbox = plane.mailbox.clone();
        drop(plane);
        assert!(client.ends_in_silence());
        assert_eq!(mailbox.ask(|_, _| ()), Err(mailbox::Stopped));
    }
}
