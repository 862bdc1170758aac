h = nbd.NBD()
h.connect_uri(uri)
for _ in range(3):
    try:
        h.pwrite(b"\x3e" * 4096, 0, nbd.CMD_FLAG_FUA)
        raise AssertionError("a write to a broken disk was acknowledged")
    except nbd.Error as error:
        assert error.errno == "EIO", error.errno
assert len(h.pread(4096, 4096)) == 4096
h.shutdown()
