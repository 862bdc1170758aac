//! The server without its sockets: connections in front, one volume behind.
