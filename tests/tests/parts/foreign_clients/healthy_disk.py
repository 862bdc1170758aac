h = nbd.NBD()
h.connect_uri(uri)
h.pwrite(b"\x3c" * 65536, 0)
h.pwrite(b"\x3d" * 4096, 8192, nbd.CMD_FLAG_FUA)
h.flush()
assert bytes(h.pread(4096, 8192)) == b"\x3d" * 4096
h.shutdown()
