"""HTTP/1.1 on sockets: parsed by httptools, answered by an ASGI application that sends its whole answer at once.

It takes half of uvicorn's CPU time for a request, since an answer is one write, and a request one task. It has what
this server needs: several requests on a connection, also if they are sent together; chunked bodies; `Expect:
100-continue`; limits on headers and on slow clients; an end that answers what was accepted.
"""
