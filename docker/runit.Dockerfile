# ginit in the place of runsvdir, on top of an image that was built around runit:
#
#     docker build -f docker/runit.Dockerfile -t app-with-ginit --build-arg BASE_IMAGE=app .
#
# Its CMD, its services and the scripts that call `sv` stay as they are (docs/how-to/from-runit.md). The image needs python3
# with its venv module. runit's own runsvdir is still there, as runsvdir.runit.
ARG BASE_IMAGE

FROM ${BASE_IMAGE} AS wheels
USER root
# The application's modules, and its settings for Python and pip, aren't for this: neither -I nor another directory finds them.
ENV PYTHONPATH= PYTHONHOME= PIP_TARGET= PIP_PREFIX= PIP_USER=
WORKDIR /source
RUN python3 -I -m venv /build
COPY setup.py setup.cfg pyproject.toml README.md LICENSE ./
COPY bin/ bin/
COPY ginit/ ginit/
RUN /build/bin/pip wheel --quiet --no-cache-dir --wheel-dir /wheels .
# All that is new, from the root on, so that it's copied whoever the image's user is.
RUN python3 -I -m venv --without-pip /opt/ginit \
    && /build/bin/pip --python /opt/ginit/bin/python install --quiet --no-cache-dir --no-index --find-links /wheels ginit-container \
    && rm -rf /opt/ginit/lib/python*/site-packages/gevent/tests /opt/ginit/lib/python*/site-packages/gevent/testing \
    && runsvdir="$(readlink -f "$(command -v runsvdir)")" \
    && mkdir -p "/new${runsvdir%/*}" /new/opt \
    && cp -a "$runsvdir" "/new$runsvdir.runit" \
    && ln -s /opt/ginit/bin/ginit "/new$runsvdir" \
    && cp -a /opt/ginit /new/opt/

FROM ${BASE_IMAGE}
COPY --from=wheels /new/ /
# Some of these images stop by HUP, which runsvdir hands on where it doesn't hand on TERM. ginit does that for both, and
# HUP would make its exit status 111.
STOPSIGNAL SIGTERM
