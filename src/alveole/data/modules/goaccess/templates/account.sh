user={{ a.user }}
password={{ a.password }}
