//! One host as its daemon's parts share it: its configuration, its guests, its migrations.
//!
//! Knows nothing of those who use it: the API's answers, the two ends of a migration.

use std::io;

use crate::config::Config;
use crate::io::registry::{Guests, Migrations};

/// A guest's machine. Its place is held until the one that drives QEMU is here.
#[derive(Clone, Debug)]
pub struct Machine;

/// One host.
#[derive(Debug)]
pub struct Site {
    /// As it is configured.
    pub config: Config,
    /// Its guests.
    pub guests: Guests<Machine>,
    /// Its migrations, at either end.
    pub migrations: Migrations,
}

impl Site {
    /// The host, with what is kept below its `state_dir`. To be opened by the one daemon that holds its lock.
    pub fn open(config: Config) -> io::Result<Self> {
        let guests = Guests::load(&config.state_dir)?;
        let migrations = Migrations::load(&config.state_dir)?;
        Ok(Self { config, guests, migrations })
    }
}
