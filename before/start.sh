#!/bin/sh
python worker.py &
gunicorn --worker-class gevent --bind 0.0.0.0:8000 app:app
