"""A page in which a student runs in the browser.

``page/`` holds the page itself, ``npm/`` says which ONNX Runtime it takes from npm. ``build`` puts
both and a student into a folder that any web server can show, ``server`` is such a web server.
"""
