//! Hostile and broken bytes against everything that reads them; each a property that holds for any input.

mod nbd;
mod control;
mod replica;
mod link;
mod peer;
