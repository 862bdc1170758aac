handles = []
for _ in range(4):
    h = nbd.NBD()
    h.connect_uri(uri)
    assert h.can_multi_conn()
    handles.append(h)
for n, h in enumerate(handles):
    h.pwrite(bytes([n + 1]) * 65536, n * 65536)
handles[3].flush()
for h in handles:
    for n in range(4):
        assert bytes(h.pread(65536, n * 65536)) == bytes([n + 1]) * 65536
# One that goes without a word takes nobody along.
del handles[0], h
for h in handles:
    h.pwrite(b"again" * 100, 8192)
    h.shutdown()
