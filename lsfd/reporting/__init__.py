"""Pictures and tables made from given numbers and images.

Nothing here knows a run, a network or a set: who calls brings the numbers. Text comes back as a
string (``tables``); every picture is a PNG, and equal input gives equal bytes (``curves``,
``pictures``, ``attention``; what they share is in ``style``). A report is one HTML file
(``html_report``): ``report_contents`` says what it holds, the folder ``page`` how it looks.
"""
