"""Stand in for curl in the shell blocks of documents: `curl.py URL …`, with the options that they use.

It sends requests for 127.0.0.1:3000 to REPLICA_URL and appends `METHOD status` to REQUEST_LOG.
"""

import os
import sys
from argparse import ArgumentParser
from http.client import HTTPConnection
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 50

parser = ArgumentParser()
parser.add_argument("url")
parser.add_argument("-s", action="store_true", help="hide the progress bar")
parser.add_argument("-S", action="store_true", help="print an error in spite of -s")
parser.add_argument("-f", action="store_true", help="print no body of an error, and fail")
parser.add_argument("-N", action="store_true", help="do not buffer the output")
parser.add_argument("-i", action="store_true", help="print the response headers too")
parser.add_argument("-w", dest="after", default="", help="print this after the body")
parser.add_argument("-X", dest="method")
parser.add_argument("-H", dest="headers", action="append", default=[])
parser.add_argument("-d", dest="body")
options = parser.parse_args()

url = urlsplit(options.url.replace("http://127.0.0.1:3000", os.environ["REPLICA_URL"]))
method = options.method or ("GET" if options.body is None else "POST")
headers = dict(header.split(": ", 1) for header in options.headers)
connection = HTTPConnection(url.netloc, timeout=_TIMEOUT_SECONDS)
connection.request(method, f"{url.path}?{url.query}" if url.query else url.path, options.body, headers)
response = connection.getresponse()

if options.i:
    sys.stdout.write("".join(f"{name}: {value}\n" for name, value in response.getheaders()) + "\n")
is_failure = options.f and response.status >= 400
sys.stdout.write("" if is_failure else response.read().decode())
sys.stdout.write(options.after.replace("%{http_code}", str(response.status)).replace("\\n", "\n"))
with open(os.environ["REQUEST_LOG"], "a") as log:
    log.write(f"{method} {response.status}\n")
if is_failure:
    sys.exit(f"curl: (22) The requested URL returned error: {response.status}")
