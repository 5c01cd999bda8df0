"""A small JSOC on 127.0.0.1: answers in the form that drms and SunPy read, FITS files to download, faults on demand.

Modelled on JSOC's own jsoc_info.c and jsoc_fetch.c.
"""

import functools
import io
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote_plus, urlsplit

import numpy as np
from astropy.io import fits

EMAIL = "known@example.org"
STEP = {"hmi.m_720s": 720, "hmi.m_45s": 45}
GOOD = 0x10400  # what a good frame of 2011 really has
_KEYWORDS = {"T_REC": "time", "CAMERA": "int", "QUALITY": "int", "CRLT_OBS": "float", "TELESCOP": "string"}


def t_rec(slot):
    return str(slot.astype("datetime64[s]")).replace("-", ".").replace("T", "_") + "_TAI"


def slot_of(text):
    date, clock = text.removesuffix("_TAI").split("_")
    return np.datetime64(f"{date.replace('.', '-')}T{clock}", "s")


@functools.cache
def magnetogram(slot, quality=GOOD):
    """A frame as JSOC exports it: an empty primary HDU, then a Rice-compressed image; int16 in units of 0.1 G."""
    pixels = np.random.default_rng(slot.astype(int)).normal(0, 200, (32, 32)).astype(np.int16)
    hdu = fits.CompImageHDU(pixels, compression_type="RICE_1")
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.1, 0.0
    hdu.header["T_REC"], hdu.header["QUALITY"] = t_rec(slot), quality
    file = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(file)
    return file.getvalue()


def point_drms_at(url):
    """Have drms, and so SunPy, talk to another server; returns what undoes it."""
    import drms.config

    servers = drms.config._server_configs
    real = servers["jsoc"]
    cgi = {key: value for key, value in real.to_dict().items() if not key.startswith("url_")}
    cgi |= {"cgi_baseurl": f"{url}cgi-bin/ajax/", "http_download_baseurl": url}
    servers["jsoc"] = drms.config.ServerConfig(cgi)
    return lambda: servers.update(jsoc=real)


class FakeJsoc:
    """Serves ``with FakeJsoc() as jsoc``. Change its attributes to change what it does.

    quality : slot -> QUALITY, for records that are not GOOD. absent : slots without a record.
    empty_twins : slots with a second record, of the other camera, without an image.
    pending : how often an export says that it is not ready. faults : name -> how often it happens.
    asked : (what, detail) of every request, in order.
    """

    def __init__(self):
        self.quality, self.absent, self.faults, self.asked = {}, set(), {}, []
        self.pending, self.empty_twins = 1, set()
        self.exports = []
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"jsoc": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def count(self, what):
        return sum(kind == what for kind, _ in self.asked)

    def happens(self, fault):
        left = self.faults.get(fault, 0)
        self.faults[fault] = max(0, left - 1)
        return left > 0

    # Each answers one CGI: the query's arguments in, JSON out.

    def jsoc_info(self, op, ds, key="", seg="", **_):
        series = re.match(r"[\w.]+", ds)[0].lower()
        if series not in STEP:
            return {"status": 1, "error": f"Series {series} does not exist"}
        if op == "series_struct":
            keywords = [{"name": name, "type": kind} for name, kind in _KEYWORDS.items()]
            segments = [{"name": "magnetogram", "type": "int", "protocol": "fits", "dims": "32x32", "note": ""}]
            return {"status": 0, "primekeys": ["T_REC", "CAMERA"], "dbindex": ["T_REC_index", "CAMERA"],
                    "keywords": keywords, "links": [], "segments": segments, "note": "a fake"}  # fmt: skip
        slots = self.select(ds)
        names = list(_KEYWORDS) if "ALL" in key else re.findall(r"\w+", key)
        empty = {"CAMERA": "2", "QUALITY": "0x80000000"}
        keywords = []
        for name in names:
            values = [self.value(name, slot) for slot in slots]
            values += [empty.get(name, self.value(name, slot)) for slot in slots if slot in self.empty_twins]
            keywords.append({"name": name, "values": values})
        answer = {"status": 0, "count": len(slots), "runtime": 0.1, "keywords": keywords}
        if seg:
            n = len(keywords[0]["values"])
            answer["segments"] = [{"name": seg, "values": ["/SUM1/x.fits"] * n, "dims": ["32x32"] * n}]
        return answer

    def value(self, name, slot):
        quality = f"0x{self.quality.get(slot, GOOD):08x}"
        return {"T_REC": t_rec(slot), "CAMERA": "1", "QUALITY": quality, "CRLT_OBS": "-4.2"}.get(name, "SDO/HMI")

    def select(self, ds):
        """The slots that have a record, of a recordset such as ``hmi.M_720s[a-b@3600s]`` or ``[a,b,c]``."""
        series, which = re.match(r"([\w.]+)\[(.*?)\]", ds).groups()
        step = np.timedelta64(STEP[series.lower()], "s")
        if "-" in which:
            first, last, every = re.match(r"(.*)-(.*)@([\d.]+)s", which).groups()
            slots = np.arange(
                slot_of(first), slot_of(last) + np.timedelta64(1, "s"), np.timedelta64(int(float(every)), "s")
            )
        else:
            slots = [slot_of(text) for text in which.split(",")]
        assert all((slot - np.datetime64("1993-01-01", "s")) % step == 0 for slot in slots)
        return [slot for slot in slots if slot not in self.absent]

    def check_address(self, address, **_):
        known = unquote_plus(address) == EMAIL
        return {
            "status": 2 if known else 4,
            "msg": "Email address is valid and registered" if known else "not validated",
        }

    def jsoc_fetch(self, op, ds="", requestid="", notify="", method="", protocol="", **_):
        if op == "exp_request":
            if self.happens("busy"):
                return {"status": 7, "error": f"User {notify} has 1 pending export requests"}
            assert (method, protocol) == ("url", "fits")
            self.exports.append([ds, self.pending])
            return {"status": 2, "requestid": f"JSOC_{len(self.exports)}", "method": method, "protocol": protocol}
        export = self.exports[int(requestid.removeprefix("JSOC_")) - 1]
        head = {"requestid": requestid, "method": "url", "protocol": "fits"}
        if export[1] > 0:
            export[1] -= 1
            return {**head, "status": 1, "wait": 1}
        series = re.match(r"[\w.]+", export[0])[0].lower()
        slots = [slot for slot in self.select(export[0]) if self.quality.get(slot, GOOD) < 0x80000000]
        slots = slots[: -1 if self.happens("forget one") else None]
        data = []
        for slot in slots:
            stamp = t_rec(slot).replace(".", "").replace(":", "")
            record = f"{series}[{t_rec(slot)}][1]{{magnetogram}}"
            data.append({"record": record, "filename": f"{series}.{stamp}.1.magnetogram.fits"})
        return {
            **head,
            "status": 0,
            "dir": "/SUM1/D1/S00000",
            "count": len(data),
            "size": len(data),
            "data": data,
            "wait": 0,
        }


class _Handler(BaseHTTPRequestHandler):
    jsoc: FakeJsoc

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        name = url.path.rpartition("/")[2]
        if name.endswith(".fits"):
            return self.send_frame(name)
        answers = {"jsoc_info": self.jsoc.jsoc_info, "jsoc_fetch": self.jsoc.jsoc_fetch}
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.jsoc.asked.append((query.get("op", "checkAddress"), query.get("ds", "")))
        if self.jsoc.happens(f"500 {name}") or self.jsoc.happens(f"500 {query.get('op')}"):
            return self.send(500, b"<html>Internal Server Error</html>")
        if self.jsoc.happens(f"html {name}"):
            return self.send(200, b"<html>Down for maintenance</html>")
        answer = answers.get(name, self.jsoc.check_address)(**query)
        return self.send(200, json.dumps(answer).encode())

    def send_frame(self, name):
        jsoc = self.jsoc
        slot = slot_of(re.sub(r".*?(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)_TAI.*", r"\1.\2.\3_\4:\5:\6_TAI", name))
        body = magnetogram(slot)
        if self.command == "HEAD":
            return self.send(200, body)
        jsoc.asked.append(("download", t_rec(slot)))
        if jsoc.happens("500 download"):
            return self.send(500, b"")
        if jsoc.happens("cut"):  # a file that is short on the server, sent faithfully
            return self.send(200, body[: len(body) // 2])
        if jsoc.happens("other"):
            return self.send(200, magnetogram(slot + np.timedelta64(1, "D")))
        if jsoc.happens("drop"):  # the line breaks in the middle
            return self.send(200, body, len(body) // 2)
        if jsoc.count("download") > jsoc.faults.get("stall after", 10**9):
            jsoc.stalled.set()
            return self.send(200, body, len(body) // 2, wait=True)
        return self.send(200, body)

    def send(self, status, body, stop=None, wait=False):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:stop])
            self.wfile.flush()
        if wait:
            self.jsoc.go_on.wait(30)
        if stop is not None:
            self.close_connection = True
