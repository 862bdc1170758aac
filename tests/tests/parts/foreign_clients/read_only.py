h = nbd.NBD()
h.connect_uri(uri)
assert h.is_read_only()
h.set_strict_mode(0)
for call, args in ((h.pwrite, (b"x" * 512, 0)), (h.zero, (512, 0)), (h.trim, (512, 0))):
    try:
        call(*args)
        raise AssertionError("a write was accepted")
    except nbd.Error as error:
        assert error.errno == "EPERM", error.errno
h.flush()
assert len(h.pread(512, 0)) == 512
h.shutdown()
