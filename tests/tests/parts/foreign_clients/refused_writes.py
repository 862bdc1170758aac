MIB = 1024 * 1024
h = nbd.NBD()
h.set_request_block_size(False)
h.connect_uri(uri)
h.set_strict_mode(0)
for length in (1, MIB, MIB + 1, 32 * MIB, 32 * MIB + 1):
    try:
        h.pwrite(bytes(length), 0)
        raise AssertionError("a write was accepted")
    except nbd.Error as error:
        assert error.errno == "EPERM", error.errno
    assert bytes(h.pread(4096, 0)) == bytes(4096)
h.shutdown()
