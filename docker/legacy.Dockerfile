# ginit on top of an image that has its application, with whatever gevent that pins:
#
#     docker build -f docker/legacy.Dockerfile -t app-with-ginit --build-arg BASE_IMAGE=app .
#
# The application's packages are neither changed nor used: ginit has an environment of its own, as in docker/Dockerfile. Its
# services go to /etc/service; the image's old CMD, if it has one, becomes one of them (docs/how-to/from-cmd.md).
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
RUN python3 -I -m venv --without-pip /opt/ginit \
    && /build/bin/pip --python /opt/ginit/bin/python install --quiet --no-cache-dir --no-index --find-links /wheels ginit-container \
    && rm -rf /opt/ginit/lib/python*/site-packages/gevent/tests /opt/ginit/lib/python*/site-packages/gevent/testing

# The user, the environment and the working directory stay the application's.
FROM ${BASE_IMAGE}
COPY --from=wheels /opt/ginit/ /opt/ginit/
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/ginit/bin/ginit"]
CMD []
