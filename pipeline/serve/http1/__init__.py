"""HTTP/1.1 on sockets: parsed by httptools, answered by an application that sends each answer at once.

A request costs no task and no timer: its bytes are parsed, the application is called once its head has come and once
its body has, and the answer is one write. It has what this server needs: several requests on a connection, also if
they are sent together; chunked bodies; `Expect: 100-continue`; limits on headers and on slow clients; an end that
answers what was accepted.
"""
