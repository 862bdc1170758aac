h = nbd.NBD()
h.connect_uri(uri)
h.pwrite(b"\x3e" * 65536, 1 << 20)
for durable in (h.flush, lambda: h.pwrite(b"\x3e" * 4096, 0, nbd.CMD_FLAG_FUA), h.flush):
    try:
        durable()
        raise AssertionError("what may be lost was called durable")
    except nbd.Error as error:
        assert error.errno == "EIO", error.errno
assert bytes(h.pread(65536, 1 << 20)) == b"\x3e" * 65536
h.shutdown()
