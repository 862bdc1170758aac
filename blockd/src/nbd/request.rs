//! NBD request.
