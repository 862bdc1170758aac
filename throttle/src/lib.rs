//! Slows a guest's writes on purpose, and only as far as somebody decided.
//!
//! ```text
//! Observation ──► Policy (decides, any time) ──► Limits ──► WriteGate (enforces, each write)
//! ```
//!
//! Pure: no I/O, no clock. Time is a [`std::time::Duration`] since any fixed instant of the caller.
//! Limits expire by themselves, so a controller that dies cannot leave a guest slow (D5).
//!
//! A policy never sees a write, and the gate never sees a reason: either can be replaced alone.
//! The [`Meter`] counts what the policies and the operator look at.

mod limits;
mod gate;
mod observation;
pub mod policy;
mod meter;

pub use gate::WriteGate;
pub use limits::Limits;
pub use meter::Meter;
pub use observation::Observation;
pub use policy::Policy;
