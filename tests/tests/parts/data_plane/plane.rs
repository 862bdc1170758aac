//! A data plane on a thread of the test, and a client that sends what it likes.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use blockd::config::DataPlaneFlag;
use blockd::io::data_plane::{self, Prepared};
use blockd::io::file_store::{Cache, FileStore, Options};
use blockd::io::mailbox::{self, Mailbox};
use blockd::nbd::export::Export;
use blockd::server::Server;
use blockd::store::BlockStore;
use blockd::volume::Volume;
use tests::requires::{Missing, skip};

pub const DISK_BYTES: u64 = 32 << 20;
pub const BOTH: [DataPlaneFlag; 2] = [DataPlaneFlag::Ring, DataPlaneFlag::Pool];

/// A data plane on a thread of its own, with a disk in a directory of its own.
pub struct Plane {
    directory: PathBuf,
    pub mailbox: Mailbox,
    thread: Option<JoinHandle<std::io::Result<Server>>>,
}

impl Plane {
    /// None, with a word about it, where this machine has no io_uring.
    pub fn start(choice: DataPlaneFlag) -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        if choice == DataPlaneFlag::Ring
            && let Err(error) = Prepared::ring()
        {
            let reason = Missing::Denied(format!("no io_uring: {error}"));
            let thread = std::thread::current();
            skip(&format!("{}, with the ring", thread.name().unwrap_or("data_plane")), &reason);
            return None;
        }
        let name = format!("data-plane-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let image = directory.join("disk.raw");
        fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        let options = Options { read_only: false, cache: Cache::Buffered };
        let store: Arc<dyn BlockStore> = Arc::new(FileStore::open(&image, options).unwrap());
        let server = Server::new(Export::new("", DISK_BYTES), Volume::new(), Arc::clone(&store));
        let listener = UnixListener::bind(directory.join("nbd.sock")).unwrap();
        let (mailbox, receiver) = mailbox::channel().unwrap();
        let serve = move || {
            let plane = if choice == DataPlaneFlag::Ring { Prepared::ring()? } else { Prepared::Pool };
            data_plane::run(plane, server, store, &listener, &receiver)
        };
        Some(Self { directory, mailbox, thread: Some(std::thread::spawn(serve)) })
    }

    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().into()
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.path("nbd.sock"))
    }

    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("nbd.sock")).unwrap()
    }

    /// A connection in transmission, with simple replies.
    pub fn client(&self) -> Client {
        Client::new(self.connect())
    }

    /// Runs a client that must succeed; returns what it says.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    pub fn qemu_io(&self, commands: &[&str]) -> String {
        let uri = self.uri();
        let mut arguments = vec!["-f", "raw"];
        commands.iter().for_each(|command| arguments.extend(["-c", command]));
        arguments.push(&uri);
        self.run("qemu-io", &arguments)
    }

    pub fn disk(&self) -> Vec<u8> {
        fs::read(self.path("disk.raw")).unwrap()
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // A plane that failed has closed its mailbox; joining says why.
        let _ = self.mailbox.stop();
        let result = self.thread.take().unwrap().join();
        let _ = fs::remove_dir_all(&self.directory);
        if !std::thread::panicking() {
            result.expect("the plane does not panic").expect("the plane ends only when it is told to");
        }
    }
}

/// A client that sends what it likes.
pub struct Client(pub UnixStream);

impl Client {
    pub fn new(mut stream: UnixStream) -> Self {
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(&3_u32.to_be_bytes()).unwrap();
        // EXPORT_NAME, the empty name.
        stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
        let mut export = [0; 10];
        stream.read_exact(&mut export).unwrap();
        assert_eq!(export[..8], DISK_BYTES.to_be_bytes());
        Self(stream)
    }

    pub fn request(&mut self, command: u16, cookie: u64, offset: u64, length: u32) {
        let mut header = 0x2560_9513_u32.to_be_bytes().to_vec();
        header.extend(0_u16.to_be_bytes());
        header.extend(command.to_be_bytes());
        header.extend(cookie.to_be_bytes());
        header.extend(offset.to_be_bytes());
        header.extend(length.to_be_bytes());
        self.0.write_all(&header).unwrap();
    }

    /// The error code and cookie of the next reply.
    pub fn reply(&mut self) -> (u32, u64) {
        let mut reply = [0; 16];
        self.0.read_exact(&mut reply).unwrap();
        assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes());
        let error = u32::from_be_bytes(reply[4..8].try_into().unwrap());
        (error, u64::from_be_bytes(reply[8..].try_into().unwrap()))
    }

    /// True if the server closes the connection without another word.
    pub fn ends_in_silence(mut self) -> bool {
        let mut rest = Vec::new();
        // Bytes that the server did not read make this end a reset rather than an end of file.
        matches!(self.0.read_to_end(&mut rest), Ok(0) | Err(_)) && rest.is_empty()
    }
}

pub fn each_plane(test: impl Fn(&Plane)) {
    BOTH.into_iter().filter_map(Plane::start).for_each(|plane| test(&plane));
}

/// Bytes without a pattern that a lucky mistake could repeat.
pub fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    (0..bytes).map(|_| next()).collect()
}
