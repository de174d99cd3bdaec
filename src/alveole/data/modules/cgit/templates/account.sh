user={{ a.user }}
password={{ a.password }}
repositories={{ a.repositories }}
title={{ a.title }}
