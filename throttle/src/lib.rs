//! Slows a guest's writes on purpose, and only as far as somebody decided.
//!
//! ```text
//! Observation ──► Policy (decides, any time) ──► Limits ──► WriteGate (enforces, each write)
//! ```
//!
//! Pure: no I/O, no clock. Time is a [`std::time::Duration`] since any fixed instant of the caller.
//! Limits expire by themselves, so a controller that dies cannot leave a guest slow.

mod gate;
mod limits;
mod observation;
pub mod policy;

pub use gate::WriteGate;
pub use limits::Limits;
pub use observation::Observation;
pub use policy::Policy;
